"""GLUE as a whole: tasks, seeds and learning rates, each a run of configs/glue.py, and one table.

    python launch/glue.py --config=configs/glue_suite.py --config.run.model.init=bert-base-uncased

The nine tasks as published, 5 seeds, from the hub. An accelerator is needed: not yet measured here.
Expect what configs/glue.py says. A folder of JSON lines, some tasks, and a grid of learning rates:

    python launch/glue.py --config=configs/glue_suite.py --config.run.model.init=my-encoder \
        --config.run.data.source=my/glue --config.tasks=cola,rte \
        --config.learning_rates='(1e-5, 3e-5, 5e-5)' --workdir=runs/my-encoder-glue

    python launch/glue.py --config=configs/glue_suite.py:smoke

Two seeds and two rates of the embedded task, from random weights: a minute, no network.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose
from condenser_jax.glue.tasks import PACKAGES
from configs import glue

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """The nine tasks as published, or the embedded one in smoke size."""
    choose("variant", variant, VARIANTS)
    config = ConfigDict()
    config.tasks = "all"  # the nine, or names with commas: "cola,rte"
    config.seeds = 5  # runs of each task and rate: of run.seed, run.seed + 1, ...
    config.epochs = 3  # of each run; it is evaluated after each
    config.learning_rates = (5e-5,)  # of several, the best on dev is taken, and the table says so
    config.keep = False  # whether the checkpoints of finished runs stay, to be exported
    config.run = glue.get_config(variant or "cola")  # what all runs share: configs/glue.py
    if variant == "smoke":
        config.tasks, config.seeds, config.epochs = PACKAGES.name, 2, 2
        config.learning_rates = (2e-3, 5e-3)
    _leave_to_the_suite(config.run)
    return config


def _leave_to_the_suite(run: ConfigDict) -> None:
    """What is set for each run, and refused if it is given."""
    run.objective.task = placeholder(str)  # of `tasks`
    run.optimizer.learning_rate = placeholder(float)  # of `learning_rates`
    run.training.steps = placeholder(int)  # of `epochs`
    run.training.eval_every = placeholder(int)  # an epoch
    run.training.save_every = placeholder(int)  # an epoch
    run.training.keep = placeholder(int)  # 1 while a run lasts; `keep` after it
