"""From text to a searching encoder in one command (Gao and Callan 2022).

    python launch/pipeline.py --config=configs/pipeline.py

The embedded default: Condenser, coCondenser, a retriever on BM25's negatives, mining, a second
retriever, evaluation and export, on the documentation of the installed packages. No network, 2 CPU
cores, about 11 minutes. Every step is done once and found again; the report is
runs/pipeline/report.md, the encoder runs/pipeline/encoder. Expect small encoders that were trained
on three million tokens to stay under BM25: MRR@10 .17 beside .38.

    python launch/pipeline.py --config=configs/pipeline.py:smoke

The same in about a minute.

One's own text and collection:

    python launch/pipeline.py --config=configs/pipeline.py \
        --config.condenser.data.source='jsonl:my/*.jsonl.gz' \
        --config.cocondenser.data.source='jsonl:my/*.jsonl.gz' \
        --config.collection=beir:my/collection
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose
from configs import cocondenser, condenser, retrieval

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke`."""
    choose("variant", variant, VARIANTS)
    config = ConfigDict()
    config.collection = "docstrings:"  # what is searched: docs/collections.md
    config.split = "test"  # whose queries are asked at the end

    config.condenser = condenser.get_config(variant)  # the first run
    config.cocondenser = cocondenser.get_config(variant)  # starts from it
    config.first = retrieval.get_config(variant)  # starts from that, on BM25's negatives
    config.second = retrieval.get_config(variant)  # starts from the same, on mined ones too
    for stage in (config.first, config.second):
        stage.data.group = 2  # one hard negative of each query
    _leave_to_the_pipeline(config)

    config.bm25 = ConfigDict()
    config.bm25.depth = 100  # the best so many passages are candidates
    config.bm25.negatives = 8  # drawn from them for each query
    config.bm25.seed = 0  # of the draw

    config.mining = ConfigDict()
    config.mining.depth = 100  # of the first retriever's ranking, and of BM25's
    config.mining.negatives = 8  # drawn from each
    config.mining.seed = 0  # of the draw
    if variant == "smoke":
        config.collection = "docstrings:jax"
    return config


def _leave_to_the_pipeline(config: ConfigDict) -> None:
    """What the steps set for their runs, and what is refused if it is given."""
    for run in (config.cocondenser, config.first, config.second):
        run.model.init = placeholder(str)  # the run before it
    for stage in (config.first, config.second):
        stage.data.train = placeholder(str)  # what was mined
        stage.data.collection = placeholder(str)  # `collection`
