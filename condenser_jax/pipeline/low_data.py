"""How much a method learns from few labels: runs of several sizes and seeds, with mean and standard
deviation (Gao and Callan 2021, section 4).

Every run is a step of a pipeline: done once, found again. A seed draws the labels, their order, the
dropout and what is initialised; the labels of a smaller size are a part of those of a larger one.
Figures are those of the last step: no checkpoint is chosen by what it is measured on.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.errors import UserError
from condenser_jax.methods import METHODS
from condenser_jax.pipeline.recipe import RUN, what_is_learned
from condenser_jax.pipeline.steps import Facts, Pipeline, Step
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.tables import Results
from condenser_jax.run import train
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.table import TASKS
from condenser_jax.warm_start import weights_identity

TASK_OF = {"similarity": "sts", "sections": "sections", "retriever": "retrieval"}
EVERYTHING = 0  # the limit that is none


class Plan(NamedTuple):
    """Which runs there are."""

    limits: Sequence[int]  # of the training rows; 0: all
    seeds: int  # runs of each size, with the seeds 0, 1, ...
    epochs: int = 0  # of each run, whatever its size; 0: `training.steps`
    test: str = ""  # what finished runs are measured on (--data of launch/evaluate.py); "": nothing
    test_split: str = "test"


def read_limits(texts: Sequence[str]) -> list[int]:
    """Sizes as they are written on a command line. Raises UserError for what is no number."""
    if not all(text.isdecimal() for text in texts):
        raise UserError(f"--limits={','.join(texts)} are no numbers of rows; e.g. 500,1000,0")
    return [int(text) for text in texts]


def check_plan(config: RunConfig, plan: Plan) -> None:
    """Raises UserError for a plan of nothing, a method that knows no labels, and GLUE's."""
    if not plan.limits or plan.seeds < 1 or min(plan.limits) < 0 or plan.epochs < 0:
        raise UserError(
            f"sizes {list(plan.limits)} with {plan.seeds} seeds for {plan.epochs} epochs: expected "
            "one size or more, each the number of rows or 0 for all, and one seed or more"
        )
    if config.objective.name == "classifier":
        raise UserError(
            "few labels of a GLUE task are measured by launch/glue.py; give their number as "
            "--config.run.data.train_limit=1000"
        )
    if config.objective.name not in TASK_OF:
        raise UserError(
            f"objective {config.objective.name!r} learns from text without labels; use one of: "
            f"{', '.join(sorted(TASK_OF))}"
        )


def run_plan(config: RunConfig, plan: Plan, root: str | Path) -> Results:
    """Does the runs that are not done yet; returns {size: {figure: mean, "sd": ...}}."""
    check_plan(config, plan)
    pipeline, data = Pipeline(Path(root)), _with_labels(config, EVERYTHING, seed=0)
    hashes = METHODS[config.objective.name].feed.open(data).hashes
    return {
        f"{limit:,} rows" if limit else "all rows": _summary(
            [pipeline.result(step).facts["figures"] for step in steps]
        )
        for limit, steps in _steps(config, plan, hashes)
    }


def _steps(config: RunConfig, plan: Plan, data: Facts) -> Iterator[tuple[int, list[Step]]]:
    for limit in plan.limits:
        runs = [_with_labels(config, limit, seed) for seed in range(plan.seeds)]
        yield limit, [_step(run, plan, data) for run in runs]


def _with_labels(config: RunConfig, limit: int, seed: int) -> RunConfig:
    data = dataclasses.replace(config.data, train_limit=limit)
    return dataclasses.replace(config, seed=seed, data=data)


def _step(config: RunConfig, plan: Plan, data: Facts) -> Step:
    def run(directory: Path, earlier: Mapping) -> Facts:
        workdir, history = train(_for_epochs(config, plan.epochs), directory / RUN, time.time())
        figures = {name.removeprefix("heldout/"): value for name, value in history["last"].items()}
        return {"figures": figures | _measure(config, plan, workdir.root)}

    settings = {
        "config": what_is_learned(config),
        "data": data,
        "init": weights_identity(config.model.init),
        "plan": [plan.epochs, plan.test, plan.test_split],
    }
    return Step(f"{config.data.train_limit or 'all'}-{config.seed}", run, settings)


def _for_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """The run with as many steps as its rows ask for, evaluated at its end alone."""
    if not epochs:
        return config
    batches = METHODS[config.objective.name].feed.open(config).batches()
    steps = epochs * batches.steps_per_epoch
    training = dataclasses.replace(
        config.training, steps=steps, eval_every=steps, save_every=steps, patience=0
    )
    return dataclasses.replace(config, training=training)


def _measure(config: RunConfig, plan: Plan, workdir: Path) -> dict[str, float]:
    """The figures of the finished run on what the plan tests, as "test ..."."""
    if not plan.test:
        return {}
    task = TASKS[TASK_OF[config.objective.name]]
    options = Options(
        (str(workdir),),
        data=plan.test,
        split=plan.test_split,
        bm25=False,
        reading=CollectionOptions.of(config.data),
    )
    (figures,) = task.report(options).figures["systems"].values()
    return {f"test {name}": value for name, value in figures.items()}


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and standard deviation of each figure over the runs; of one run there is no latter."""
    summary: dict[str, float] = {"runs": len(runs)}
    for name in runs[0]:
        values = [run[name] for run in runs]
        summary[name] = float(np.mean(values))
        if len(runs) > 1:
            summary[f"sd {name}"] = float(np.std(values, ddof=1))
    return summary
