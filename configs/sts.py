"""Sentence similarity by regression of cosines (Gao and Callan 2021, section 4.2).

    python launch/train.py --config=configs/sts.py

The embedded default needs no network: pairs of lines of docstrings, whose score is the share of
words that they have in common, so it shows that everything works and measures no meaning. It starts
from random weights; 2 CPU cores, about 2 minutes. The STS benchmark (a folder with train.tsv,
dev.tsv, test.tsv: score, sentence1, sentence2) and an encoder of one's own:

    python launch/train.py --config=configs/sts.py:paper \
        --config.data.train=my/stsb --config.model.init=path-or-hub-id

4 epochs of batch 16 at 2e-5 and warm-up 0.1, sentence-transformers' setting; the papers do not
state theirs. Expect Spearman 82.5 (BERT-base) and 85.6 (Condenser) on test. Not yet measured here.
With few labels, over several seeds:

    python launch/low_data.py --config=configs/sts.py:paper --config.data.train=my/stsb \
        --config.model.init=path-or-hub-id --limits=500,1000,0 --seeds=5 --epochs=4

    python launch/train.py --config=configs/sts.py:smoke

The embedded default in seconds.
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS, sentences

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = sentences(variant)
    config.objective = ConfigDict()
    config.objective.name = "similarity"  # the method: a row of condenser_jax/methods.py
    config.objective.pooling = "cls"  # or "mean"
    if variant == "paper":
        config.data.train = "stsb"  # name yours
        config.training.update({"steps": 1440, "eval_every": 360, "save_every": 360})
    return config
