"""Searches: python launch/search.py --model=my-encoder --vectors=vectors --queries=beir:my/scifact

The vectors are those of launch/encode.py with the same model. Writes a TREC run.
"""

import sys
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

MODEL = flags.DEFINE_string("model", "", "the encoder of the queries")
USAGE = command.usage_flags()
VECTORS = flags.DEFINE_string("vectors", "", "directory that launch/encode.py wrote")
QUERIES = flags.DEFINE_string(
    "queries", "", "a collection, e.g. beir:my/scifact or docstrings:, or a .jsonl or .tsv file"
)
SPLIT = flags.DEFINE_string("split", "test", "of a collection: whose queries")
K = flags.DEFINE_integer("k", 1000, "passages of each query")
OUTPUT = flags.DEFINE_string("output", "run.trec", "file to write, .gz compresses it")
RECALL = flags.DEFINE_float(
    "approximate", 0.0, "share of the true best to be expected, e.g. 0.95; 0 searches exactly"
)
INDEX = flags.DEFINE_string("index", "", "search a FAISS index: flat, ivf or hnsw; built once")
TAG = flags.DEFINE_string("tag", "", "name of the run; default: the model's folder")
READING = command.reading_flags()


def main() -> None:
    """Reads encoder, vectors and queries, and writes the run."""
    from condenser_jax.dense import open_texts, search_corpus
    from condenser_jax.encoder import Encoder
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import UserError
    from condenser_jax.retrieval.trec import check_run, write_run
    from condenser_jax.vectors import open_vectors
    from condenser_jax.whole_files import check_file

    if not MODEL.value or not VECTORS.value or not QUERIES.value:
        raise UserError(
            "--model, --vectors and --queries are all needed: --model=my-encoder "
            "--vectors=vectors --queries=beir:my/scifact"
        )
    if Path(QUERIES.value).expanduser().is_file():
        command.refuse_idle(f"{QUERIES.value} is a file and has no splits", SPLIT)
    check_file(OUTPUT.value, "--output")
    enable_compilation_cache()
    vectors = open_vectors(VECTORS.value)
    queries = open_texts(QUERIES.value, "query", SPLIT.value, command.reading_options(READING))
    tag = TAG.value or "_".join(Path(MODEL.value).resolve().name.split())
    check_run(OUTPUT.value, chain([tag], queries.ids, vectors.each_id()))
    encoder = Encoder.load(MODEL.value, **command.values(USAGE))
    run = search_corpus(
        encoder,
        vectors,
        queries,
        K.value,
        recall=RECALL.value,
        index=INDEX.value,
        shows_progress=True,
    )
    Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
    write_run(OUTPUT.value, run, tag)
    print(f"the best {K.value} of {len(vectors):,} passages for {len(run)} queries: {OUTPUT.value}")


if __name__ == "__main__":
    command.run(main)
