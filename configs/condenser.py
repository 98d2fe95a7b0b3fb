"""Condenser pre-training (Gao and Callan, EMNLP 2021).

    python launch/train.py --config=configs/condenser.py

The embedded default: a small Condenser from scratch on the documentation of the installed packages.
No network, 2 CPU cores, about 4 minutes. Expect, on the masked tokens of held-out modules, a head
loss at least 1.2 nats under the cross entropy of the training unigram. Span retrieval is reported,
not expected to rise: only coCondenser trains it.

    python launch/train.py --config=configs/condenser.py:smoke

The same in seconds, to see that everything works.

    python launch/train.py --config=configs/condenser.py:paper

BERT-base on Wikipedia + BookCorpus, 8 epochs, as published; in the paper about a week on four
RTX 2080 Ti. Not yet measured here. One's own corpus and checkpoint:

    python launch/train.py --config=configs/condenser.py:paper \
        --config.data.source='jsonl:my/*.jsonl.gz' --config.model.init=path-or-hub-id
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS, docstrings, paper, smoke

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "condenser"  # the method: a row of condenser_jax/methods.py
    config.objective.early_layer = 1  # hidden state that skips to the head; the papers: half way
    config.objective.head_layers = 2  # layers of the condenser head
    config.objective.late_mlm = True  # also predict from the late states
    config.objective.head_init = "random"  # or "late": copies of the last late layers
    config.objective.head_warmup_steps = 0  # first steps that train the head alone
    if variant == "paper":
        paper(config)
        config.objective.early_layer = 6
        return config
    return smoke(config, variant)
