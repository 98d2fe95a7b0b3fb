"""Masked language modelling: the baseline that every comparison with Condenser needs.

    python launch/train.py --config=configs/mlm.py

The embedded default: a small encoder from scratch on the documentation of the installed packages.
No network, 2 CPU cores, about 3 minutes.

    python launch/train.py --config=configs/mlm.py:smoke

The same in seconds.

    python launch/train.py --config=configs/mlm.py:paper

BERT-base on Wikipedia + BookCorpus with the setting of the Condenser paper. Not yet measured here.
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS, docstrings, paper, smoke

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "mlm"  # the method: a row of condenser_jax/methods.py
    if variant == "paper":
        paper(config)
        return config
    return smoke(config, variant)
