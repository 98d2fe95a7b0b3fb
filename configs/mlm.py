"""Masked language modelling: the baseline that every comparison with Condenser needs.

    python launch/train.py --config=configs/mlm.py

The embedded default: a small encoder from scratch on the documentation of the installed packages.
No network, 2 CPU cores, about 3 minutes.

    python launch/train.py --config=configs/mlm.py:smoke

The same in seconds.

    python launch/train.py --config=configs/mlm.py:paper

BERT-base on Wikipedia + BookCorpus with the setting of the Condenser paper. Not yet measured here.

    python launch/train.py --config=configs/mlm.py:teacher

A small teacher for configs/tutor_kd.py and configs/distill.py, twice as wide as their students; 4
minutes. Expect 3.87 nats on masked held-out tokens (unigram 6.36), 38 % of them named right. A
checkpoint that has no MLM head gets one, itself unchanged, by

    python launch/train.py --config=configs/mlm.py --config.model.init=DIRECTORY \
        --config.objective.frozen_backbone=True
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS as COMMON
from configs.common import docstrings, paper, smoke

VARIANTS = (*COMMON, "teacher")


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke`, `paper` or `teacher`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "mlm"  # the method: a row of condenser_jax/methods.py
    config.objective.frozen_backbone = False  # train the MLM head alone
    if variant == "teacher":
        config.model.update({"hidden_size": 192, "intermediate_size": 768})
        config.optimizer.learning_rate = 1e-3  # at 4e-3 it stays at the unigram
        config.training.update({"steps": 4000, "eval_every": 1000, "save_every": 1000})
        return config
    if variant == "paper":
        paper(config)
        return config
    return smoke(config, variant)
