"""Mines: python launch/mine.py --data=beir:my/scifact --model=my-encoder --output=hard.jsonl

Writes the training queries with their positives and hard negatives: passages that the model, BM25
or both rank high and that are neither positives nor near-copies of one. BM25 alone needs no model.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

DATA = flags.DEFINE_string(
    "data", "", "what is trained on: beir:my/scifact, docstrings:, tevatron:train.jsonl, ..."
)
SPLIT = flags.DEFINE_string("split", "train", "of a collection: whose queries")
MODEL = flags.DEFINE_string("model", "", "a fine-tuned encoder; empty: BM25 alone")
USAGE = command.usage_flags()
FORCE = flags.DEFINE_boolean("force", False, "mine with a model that was never fine-tuned")
BM25 = flags.DEFINE_boolean("bm25", False, "mine with BM25, and join what both find")
OUTPUT = flags.DEFINE_string("output", "", "training file to write, .jsonl or .jsonl.gz")
VECTORS = flags.DEFINE_string(
    "vectors", "", "directory of the model's vectors, perhaps there; default: beside the output"
)
DEPTH = flags.DEFINE_integer("depth", 200, "the best so many passages are candidates")
NEGATIVES = flags.DEFINE_integer("negatives", 30, "drawn from them for each query, of each ranking")
MARGIN = flags.DEFINE_float(
    "margin", None, "leave out what does not score so much below the best positive"
)
SHARE = flags.DEFINE_float(
    "share", None, "leave out what scores more than this share of the best positive, e.g. 0.95"
)
SEED = flags.DEFINE_integer("seed", 0, "of what is drawn")
READING = command.reading_flags()


def main() -> None:
    """Reads the encoder, if any, and the training data, and writes the file."""
    from condenser_jax.encoder import Encoder, default_dtype
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import UserError
    from condenser_jax.mine import check_wishes, mine_file
    from condenser_jax.retrieval.mining import MiningOptions
    from condenser_jax.retrieval.training_texts import TEVATRON

    if not DATA.value or not OUTPUT.value:
        raise UserError(
            "--data and --output are both needed: --data=beir:my/scifact --output=hard.jsonl"
        )
    check_wishes(OUTPUT.value, bool(MODEL.value) or BM25.value)  # before a model is read
    if not MODEL.value:
        command.refuse_idle("there is no --model", VECTORS, *USAGE.values(), FORCE)
    if DATA.value.startswith(f"{TEVATRON}:"):
        command.refuse_idle("a training file has no splits", SPLIT)
    options = MiningOptions(DEPTH.value, NEGATIVES.value, MARGIN.value, SHARE.value, SEED.value)
    encoder = None
    if MODEL.value:
        enable_compilation_cache()
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # texts of one process: no workers to share
        encoder = Encoder.load(MODEL.value, **command.values(USAGE), dtype=default_dtype())
    found = mine_file(
        OUTPUT.value,
        DATA.value,
        SPLIT.value,
        options,
        encoder=encoder,
        vectors=VECTORS.value or f"{OUTPUT.value}.vectors",
        uses_bm25=BM25.value,
        forced=FORCE.value,
        reading=command.reading_options(READING),
        shows_progress=True,
    )
    print(f"{found}\nwritten to {OUTPUT.value}")


if __name__ == "__main__":
    command.run(main)
