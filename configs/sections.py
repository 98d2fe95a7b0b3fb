"""Which sentence is of the same section, by triplets (Ein Dor et al. 2018; Gao and Callan 2021,
section 4.2).

    python launch/train.py --config=configs/sections.py

The embedded default needs no network: a docstring's summary, a line of its body, and a line of the
next docstring of the module. It starts from random weights; 2 CPU cores, about 2 minutes. Triplets
(a folder with train.tsv, dev.tsv, test.tsv: anchor, positive, negative) and an encoder of one's
own:

    python launch/train.py --config=configs/sections.py:paper \
        --config.data.train=my/triplets --config.model.init=path-or-hub-id

1 epoch of 1.8 million triplets, batch 16 at 2e-5, margin 5, as sentence-transformers trains on
Wikipedia's sections. Expect an accuracy of .80 (BERT-base and Condenser), with 10,000 triplets .75
and .76, with 1,000 .72 and .73. Not yet measured here. With few triplets, over several seeds:

    python launch/low_data.py --config=configs/sections.py:paper --config.data.train=my/triplets \
        --config.model.init=path-or-hub-id --limits=1000,10000,0 --seeds=5 --epochs=1

    python launch/train.py --config=configs/sections.py:smoke

The embedded default in seconds.
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS, sentences

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = sentences(variant)
    config.objective = ConfigDict()
    config.objective.name = "sections"  # the method: a row of condenser_jax/methods.py
    config.objective.pooling = "cls"  # or "mean"
    config.objective.margin = 5.0  # by which the other section's sentence is to be farther away
    if variant == "paper":
        config.data.train = "triplets"  # name yours
        config.training.update({"steps": 112_000, "eval_every": 10_000, "save_every": 10_000})
    return config
