"""Masked language modelling: the baseline that every comparison with Condenser needs.

    python launch/train.py --config=configs/mlm.py            embedded default, a small encoder from scratch, no network,
                                                              about 4 minutes on 2 CPU cores
    python launch/train.py --config=configs/mlm.py:smoke      the same in seconds
    python launch/train.py --config=configs/mlm.py:paper      BERT-base on Wikipedia + BookCorpus; not yet measured here
"""

from configs.common import docstrings, paper, smoke
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "mlm"
    if variant == "paper":
        paper(config)
        return config
    return smoke(config, variant)
