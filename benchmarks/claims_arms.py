"""The ways of pre-training that benchmarks/claims.py compares, at equal steps and data."""

import argparse
from typing import Any

from claims_flags import ABLATIONS
from claims_measures import HELDOUT
from claims_report import START

from condenser_jax.config import RunConfig
from condenser_jax.methods import configure
from condenser_jax.pipeline.recipe import training_step
from condenser_jax.pipeline.steps import Step
from condenser_jax.warm_start import initial_checkpoint
from configs import cocondenser, condenser, mlm


def configuration(args: argparse.Namespace, values: Any, steps: int, **sections: Any) -> RunConfig:
    """A pre-training configuration of the benchmark. Of docstrings it reads neither `test` nor
    `dev`. (What has paired the spans of dev's texts knows its answers, and would choose rates that
    keep them.) Of other texts a part is held out by document, whatever is asked of it.
    """
    values = values.copy_and_resolve_references()
    values.data.update({"source": args.source, "heldout_share": 2 * HELDOUT})
    values.model.init = args.init
    values.optimizer.learning_rate = args.learning_rate
    values.training.update({"steps": steps, "eval_every": steps, "save_every": steps})
    for section, content in sections.items():
        values[section].update(content)
    return configure(values.to_dict())


def arms(args: argparse.Namespace) -> dict[str, Step | None]:
    """The starts by name; None is the random one, or the checkpoint as it is. Heads read the early
    tokens half way up, as in the papers.
    """
    n, variant = args.steps, "smoke" if args.smoke else ""
    first, rest = condenser.get_config(variant), cocondenser.get_config(variant)
    checkpoint = initial_checkpoint(args.init)
    layers = checkpoint.config.num_layers if checkpoint else first.model.num_layers
    for values in (first, rest):
        values.objective.early_layer = layers // 2
    mlm_config = configuration(args, mlm.get_config(variant), 2 * n)
    whole = configuration(args, first, 2 * n)
    half = training_step("condenser-half", configuration(args, first, n))
    second = {
        "optimizer": {"learning_rate": args.learning_rate / 2},
        "training": {"batch_size": 32},
    }
    contrast = configuration(args, rest, n, **second)
    found = {
        START: None,
        "mlm": training_step("mlm", mlm_config),
        "condenser": training_step("condenser", whole),
        "cocondenser": training_step("cocondenser", contrast, init=half),
    }
    for name, objective in ABLATIONS.items():
        config = configuration(args, first, 2 * n, objective=objective)
        found[name] = training_step(name, config)
    return found
