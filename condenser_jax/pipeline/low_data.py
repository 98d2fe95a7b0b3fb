"""How much a method learns from few labels: runs of several sizes and seeds, with mean and standard
deviation (Gao and Callan 2021, section 4).

Every run is a step of a pipeline: done once, found again. A seed draws the labels, their order, the
dropout and what is initialised; the labels of a smaller size are a part of those of a larger one.
Figures are those of the last step: no checkpoint is chosen by what it is measured on.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.errors import UserError
from condenser_jax.feeds.tokens import hash_texts
from condenser_jax.methods import METHODS
from condenser_jax.pipeline.recipe import RUN, collection_hash, what_is_learned
from condenser_jax.pipeline.steps import Facts, Pipeline, Step
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.sentence_sources import open_pairs, open_triplets
from condenser_jax.retrieval.tables import Results
from condenser_jax.run import train
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.retrieval import measure_bm25, open_measured
from condenser_jax.tasks.systems import BM25
from condenser_jax.tasks.table import TASKS
from condenser_jax.warm_start import weights_identity

SEARCH = "retrieval"
TASK_OF = {"similarity": "sts", "sections": "sections", "retriever": SEARCH}
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
    """Does the runs that are not done yet; returns {size: {figure: mean, "sd": ...}}, and beside a
    search of a test BM25's.

    Raises UserError for a plan that cannot be and a test that cannot be read, before any run.
    """
    check_plan(config, plan)
    test = _Test(config, plan) if plan.test else None
    pipeline, data = Pipeline(Path(root)), _with_labels(config, EVERYTHING, seed=0)
    hashes = METHODS[config.objective.name].feed.open(data).hashes
    results = {
        f"{limit:,} rows" if limit else "all rows": _summary(
            [_figures(pipeline, steps) for steps in runs]
        )
        for limit, runs in _steps(config, plan, hashes, test)
    }
    if test and test.task == SEARCH:
        results[BM25] = _figures(pipeline, [test.by_words()])
    return results


def _figures(pipeline: Pipeline, steps: Sequence[Step]) -> dict[str, float]:
    found: dict[str, float] = {}
    for step in steps:
        found |= pipeline.result(step).facts["figures"]
    return found


def _steps(
    config: RunConfig, plan: Plan, data: Facts, test: "_Test | None"
) -> Iterator[tuple[int, list[list[Step]]]]:
    """Yields each size with the steps of its runs: a training, and perhaps a test of it."""
    for limit in plan.limits:
        runs = (_with_labels(config, limit, seed) for seed in range(plan.seeds))
        trainings = [_training(run, plan, data) for run in runs]
        yield limit, [[step, test.of(step)] if test else [step] for step in trainings]


def _with_labels(config: RunConfig, limit: int, seed: int) -> RunConfig:
    data = dataclasses.replace(config.data, train_limit=limit)
    return dataclasses.replace(config, seed=seed, data=data)


def _training(config: RunConfig, plan: Plan, data: Facts) -> Step:
    def run(directory: Path, earlier: Mapping) -> Facts:
        _, history = train(_for_epochs(config, plan.epochs), directory / RUN, time.time())
        figures = {name.removeprefix("heldout/"): value for name, value in history["last"].items()}
        return {"figures": figures}

    settings = {
        "config": what_is_learned(config),
        "data": data,
        "init": weights_identity(config.model.init),
        "epochs": plan.epochs,
    }
    if config.training.patience:
        settings["eval_every"] = config.training.eval_every  # decides where a run ends
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


class _Test:
    """What finished runs are measured on; figures are called "test ...". Raises UserError for what
    cannot be read, or not be measured.
    """

    def __init__(self, config: RunConfig, plan: Plan) -> None:
        self.task, reading = TASK_OF[config.objective.name], CollectionOptions.of(config.data)
        self.options = Options(data=plan.test, split=plan.test_split, bm25=False, reading=reading)
        try:
            known = self._hash()
        except UserError as error:
            raise UserError(f"--test={plan.test} cannot be measured: {error}") from error
        self.settings = {"test": known, "split": plan.test_split}

    def _hash(self) -> str:
        asked = self.options.data, self.options.split, self.options.reading
        if self.task == SEARCH:
            open_measured(self.options)
            return collection_hash(*asked)
        rows = open_pairs(*asked) if self.task == "sts" else open_triplets(*asked)
        return hash_texts(json.dumps(row) for row in rows)

    def of(self, training: Step) -> Step:
        """The last step of a run, measured."""

        def run(directory: Path, earlier: Mapping) -> Facts:
            where = str(earlier[training.name].directory / RUN)
            report = TASKS[self.task].report(dataclasses.replace(self.options, models=(where,)))
            (figures,) = report.figures["systems"].values()
            return _named(figures)

        return Step(f"test-{training.name}", run, self.settings, (training,))

    def by_words(self) -> Step:
        """BM25, measured."""
        return Step("test-bm25", lambda *_: _named(measure_bm25(self.options)), self.settings)


def _named(figures: Mapping[str, float]) -> Facts:
    return {"figures": {f"test {name}": value for name, value in figures.items()}}


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and standard deviation of each figure over the runs; of one run there is no latter."""
    summary: dict[str, float] = {"runs": len(runs)}
    for name in runs[0]:
        values = [run[name] for run in runs]
        summary[name] = float(np.mean(values))
        if len(runs) > 1:
            summary[f"sd {name}"] = float(np.std(values, ddof=1))
    return summary
