"""Fine-tuning of encoders of one shape on one task, as one program: every seed and learning rate of
every encoder.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from side_by_side import Member, figures_under, side_by_side, train_side_by_side

from condenser_jax.build import Built, build
from condenser_jax.config import RunConfig
from condenser_jax.data.batches import Batches
from condenser_jax.glue.report import Cell, chosen_rate
from condenser_jax.glue_plan import Suite, cell_config
from condenser_jax.glue_suite import read_task
from condenser_jax.hf.load import Checkpoint
from condenser_jax.models.config import BackboneConfig
from condenser_jax.pipeline.steps import Facts, Pipeline, Step
from condenser_jax.types import Tree
from condenser_jax.warm_start import initial_checkpoint, initial_groups

AT_ONCE = {"cpu": 1}  # runs of a program: on a CPU more gain nothing, and lose more at a kill
USUALLY_AT_ONCE = 40
TRAINED = {"backbone", "pooler"}  # groups that a checkpoint may have
Weights = Callable[[int], Tree]  # by seed: the groups that start from it


class Job(NamedTuple):
    """A run of the grid."""

    name: str
    rate: float
    seed: int


def fine_tune_together(
    task: str, suites: Mapping[str, Suite], place: Path
) -> dict[str, list[Cell]]:
    """Fine-tunes on a task: {encoder: its runs}, as `run_suite` has them but that each is measured
    at its end alone. The first seed is fine-tuned at every rate, the others at the best of these.

    Args:
      suites: of each encoder, alike but in `model.init` and in the tokenizer of one from scratch.
      place: keeps what programs found, which are not run again; it is for these suites alone.
    """
    rows = read_task(next(iter(suites.values())), task).rows
    programs = Pipeline(place)
    cells: dict[str, list[Cell]] = {name: [] for name in suites}
    for starts in _by_shape(task, suites, rows):
        grid = starts.suite.grid
        seeds = range(starts.suite.run.seed, starts.suite.run.seed + grid.seeds)
        first = [
            Job(name, rate, seeds[0]) for rate in grid.learning_rates for name in starts.weights
        ]
        most = AT_ONCE.get(jax.default_backend(), USUALLY_AT_ONCE)
        size = -(-len(first) // -(-len(first) // most))  # of one program for all
        _add(cells, starts, first, size, programs)
        rates = {name: chosen_rate(cells[name]) for name in starts.weights}
        rest = [Job(name, rates[name], seed) for seed in seeds[1:] for name in starts.weights]
        _add(cells, starts, rest, size, programs)
        for name, rate in rates.items():
            cells[name] = [cell for cell in cells[name] if cell.learning_rate == rate]
    return cells


class Starts(NamedTuple):
    """Encoders of one shape, and what they share."""

    task: str
    suite: Suite
    built: Built
    weights: dict[str, Weights]  # by encoder


def _by_shape(task: str, suites: Mapping[str, Suite], rows: int) -> list[Starts]:
    found: dict[Any, Starts] = {}
    from_scratch_last = sorted(suites, key=lambda name: not suites[name].run.model.init)
    for name in from_scratch_last:
        suite = suites[name]
        config = cell_config(suite, task, suite.grid.learning_rates[0], suite.run.seed, rows)
        checkpoint = initial_checkpoint(config.model.init)
        built = build(config) if checkpoint is None else None
        loaded = TRAINED & (checkpoint.params.keys() if checkpoint else {"backbone"})
        shape = built.backbone if built else _dropped(checkpoint.config, config), *sorted(loaded)
        if shape not in found:
            found[shape] = Starts(task, suite, built or build(config), {})
        found[shape].weights[name] = _start(found[shape].built, checkpoint, config)
    return list(found.values())


def _dropped(backbone: BackboneConfig, config: RunConfig) -> BackboneConfig:
    """A checkpoint's architecture with the dropout that is asked for."""
    rates = {name: getattr(config.model, name) for name in ("hidden_dropout", "attention_dropout")}
    return dataclasses.replace(backbone, **{k: v for k, v in rates.items() if v is not None})


def _start(built: Built, checkpoint: Checkpoint | None, config: RunConfig) -> Weights:
    """The groups that an encoder starts with, by the seed."""
    if checkpoint is not None:
        loaded, _ = initial_groups(built.run.objective, checkpoint, config)
        return lambda seed: loaded
    init = jax.jit(lambda key: {"backbone": built.run.objective.init(key, {})["backbone"]})
    return lambda seed: jax.device_get(init(jax.random.key(seed)))


def _add(
    cells: dict[str, list[Cell]], starts: Starts, jobs: Sequence[Job], size: int, programs: Pipeline
) -> None:
    """Does the jobs, so many at once."""
    for begin in range(0, len(jobs), size):
        chosen = jobs[begin : begin + size]
        found = programs.result(_program(starts, chosen)).facts["last"]
        for job, last in zip(chosen, found, strict=True):
            cells[job.name].append(Cell(job.rate, job.seed, [last]))


def _program(starts: Starts, jobs: Sequence[Job]) -> Step:
    """Fine-tunes some runs as one; its facts are the figures of each at its end."""

    def run(directory: Path, earlier: Mapping[str, Any]) -> Facts:
        built = starts.built
        texts = {seed: _batches(built, seed) for seed in {job.seed for job in jobs}}
        members = [_member(starts, job, texts[job.seed]) for job in jobs]
        at_the_end = dataclasses.replace(built.run, eval_every=built.run.steps)
        _, figures = train_side_by_side(side_by_side(at_the_end, members))
        return {"last": [figures_under(figures, f"{member.name}/heldout/") for member in members]}

    return Step("program", run, {"jobs": [job._asdict() for job in jobs]})


def _member(starts: Starts, job: Job, texts: Batches) -> Member:
    name = f"{job.name}, learning rate {job.rate:g}, seed {job.seed}"
    return Member(name, job.seed, job.rate, starts.weights[job.name](job.seed), texts)


def _batches(built: Built, seed: int) -> Batches:
    """The training texts in the order of a seed."""
    material: Any = built.material
    config: RunConfig = dataclasses.replace(material.config, seed=seed)
    return dataclasses.replace(material, config=config).batches()
