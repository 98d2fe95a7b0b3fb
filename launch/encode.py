"""Encodes: python launch/encode.py --model=my-encoder --corpus=beir:my/scifact --output=vectors

A model is a work directory of launch/train.py, an exported directory, one of sentence-transformers
(BERT or RoBERTa), or a hub id. Started again, it makes what is missing or damaged. A group of
processes (docs/scaling.md) shares the shards among them.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

MODEL = flags.DEFINE_string("model", "", "the encoder")
USAGE = command.usage_flags()
CORPUS = flags.DEFINE_string(
    "corpus", "", "a collection, e.g. beir:my/scifact or docstrings:, or a .jsonl or .tsv file"
)
SPLIT = flags.DEFINE_string("split", "test", "of a collection, with --kind=query: whose queries")
KIND = flags.DEFINE_string("kind", "passage", "what to encode: passage or query")
OUTPUT = flags.DEFINE_string("output", "", "directory of the vectors")
DTYPE = flags.DEFINE_string("dtype", "float32", "of the vectors: float32, bfloat16 or float16")
COMPUTE = flags.DEFINE_string(
    "compute_dtype", "", "of matrix products; default: bfloat16 on accelerators, float32 on CPU"
)
TOKENS = flags.DEFINE_integer(
    "tokens_per_batch", 0, "padding included; default: by the kind of device"
)
SHARD_ROWS = flags.DEFINE_integer("shard_rows", 16384, "vectors of a shard")
READING = command.reading_flags()


def main() -> None:
    """Reads the encoder and the texts, and writes the vectors."""
    command.join_group(None, None, None, None)  # by the environment: launch/local_cluster.py, SLURM
    from condenser_jax.cluster import is_first
    from condenser_jax.dense import encode_corpus, open_texts
    from condenser_jax.encoder import Encoder, default_dtype
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import UserError
    from condenser_jax.whole_files import check_folder

    if not MODEL.value or not CORPUS.value or not OUTPUT.value:
        raise UserError(
            "--model, --corpus and --output are all needed: --model=my-encoder "
            "--corpus=beir:my/scifact --output=vectors"
        )
    if KIND.value == "passage":
        command.refuse_idle("passages belong to no split", SPLIT)
    if Path(CORPUS.value).expanduser().is_file():
        command.refuse_idle(f"{CORPUS.value} is a file and has no splits", SPLIT)
    check_folder(OUTPUT.value, f"--output={OUTPUT.value}", "--output")
    enable_compilation_cache()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # texts of one process: no workers to share with
    encoder = Encoder.load(
        MODEL.value,
        **command.values(USAGE),
        dtype=COMPUTE.value or default_dtype(),
        tokens_per_batch=TOKENS.value,
    )
    vectors = encode_corpus(
        encoder,
        open_texts(CORPUS.value, KIND.value, SPLIT.value, command.reading_options(READING)),
        OUTPUT.value,
        source=CORPUS.value,
        kind=KIND.value,
        dtype=DTYPE.value,
        shard_rows=SHARD_ROWS.value,
        shows_progress=is_first(),
    )
    if is_first():
        print(f"{len(vectors):,} vectors of {encoder.width} in {vectors.directory}")


if __name__ == "__main__":
    command.run(main)
