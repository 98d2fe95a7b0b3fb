"""Condenser pre-training (Gao and Callan, EMNLP 2021).

    python launch/train.py --config=configs/condenser.py            embedded default: a small Condenser from scratch on the
                                                                    documentation of the installed packages; no network, about
                                                                    5 minutes on 2 CPU cores, at most 6
    python launch/train.py --config=configs/condenser.py:smoke      the same in seconds, to see that everything works
    python launch/train.py --config=configs/condenser.py:paper      BERT-base, Wikipedia + BookCorpus, 8 epochs; in the paper about
                                                                    a week on four RTX 2080 Ti; not yet measured here

One's own corpus and checkpoint:

    python launch/train.py --config=configs/condenser.py:paper \
        --config.data.source='jsonl:my/*.jsonl.gz' --config.model.init=path-or-hub-id

What to expect of the default: on the masked tokens of held-out modules, head loss at least 1.2 nats under the unigram's cross entropy
(5.8 nats). Span retrieval does not rise under this objective: only coCondenser trains it.
"""

from configs.common import docstrings, paper, smoke
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "condenser"
    config.objective.early_layer = 1  # hidden state that skips to the head; the papers: half of the layers
    config.objective.head_layers = 2  # layers of the condenser head
    config.objective.late_mlm = True  # also predict from the late states
    config.objective.head_init = "random"  # or "late": copies of the last late layers
    config.objective.head_warmup_steps = 0  # first steps that train the head alone
    if variant == "paper":
        paper(config)
        config.objective.early_layer = 6
        return config
    return smoke(config, variant)
