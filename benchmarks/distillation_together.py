"""Rows of one family, trained as one program; each gets the work directory that it would have had
by itself.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from distillation_family import NUMBERS, Family
from side_by_side import Member, figures_under, one_of, side_by_side, train_side_by_side

from condenser_jax.build import Built, build, compute_config, start_of_tutor
from condenser_jax.config import RunConfig
from condenser_jax.objectives.distillation import FIT
from condenser_jax.run import record_run
from condenser_jax.teachers import FoundTeacher, find_teacher
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import replicated
from condenser_jax.training.state import TrainState
from condenser_jax.types import Tree

FIGURES = ("heldout_teacher/auc", "heldout_uniform/auc", "heldout_teacher/cosine")
ON_THE_WAY, ROWS = "checkpoints", "rows"
KEPT = (*FIGURES, "heldout/teacher_accuracy")  # figures in which no weight of a loss is


def train_family(
    family: Family, rows: Mapping[str, RunConfig], lead: RunConfig, place: Path
) -> dict[str, Any]:
    """Trains the rows of a family, and writes the work directory of each to `place` / rows / its
    name; returns {row: {"first", "last"}}, held-out figures. Goes on where it was stopped.

    Raises UserError and RunFailed as the run of a row does.
    """
    built, teacher = build(lead), find_teacher(lead.objective.teacher)
    run, members = _of_family(family, built, lead, teacher), _members(family, rows, built, teacher)
    start = {**built.run.initial_state().params, NUMBERS: members[0].loaded[NUMBERS]}
    first = run.evaluate(jax.device_put(start, replicated(run.mesh)), run.placed)
    states, figures = train_side_by_side(side_by_side(run, members), place / ON_THE_WAY)
    shutil.rmtree(place / ROWS, ignore_errors=True)  # of an attempt that was stopped here
    facts = {}
    for number, (name, config) in enumerate(rows.items()):
        last = figures_under(figures, f"{name}/")
        facts[name] = _write_row(config, one_of(states, number), first, last, place / ROWS / name)
    shutil.rmtree(place / ON_THE_WAY)
    return facts


def _members(
    family: Family, rows: Mapping[str, RunConfig], built: Built, teacher: FoundTeacher
) -> list[Member]:
    """The rows, each with its numbers and the tutor that it starts with."""
    fresh = _fresh_tutor(built.run)
    return [
        Member(
            name,
            config.seed,
            config.optimizer.learning_rate,
            {
                **built.run.loaded,
                **(start_of_tutor(config.objective, teacher) or fresh),
                NUMBERS: jax.tree.map(np.float32, family.numbers_of(config.objective)),
            },
        )
        for name, config in rows.items()
    ]


def _write_row(
    config: RunConfig,
    state: TrainState,
    first: Mapping[str, float],
    last: Mapping[str, float],
    place: Path,
) -> dict[str, dict[str, float]]:
    """Writes the work directory of a row, given its state as one of a family; returns its figures,
    {"first", "last"}.
    """
    own = build(config)
    alone = _as_trained_alone(state, own.run)
    kept = [figure for figure in _kept_by(alone, state) if figure in last]
    history = {
        when: {figure: figures[figure] for figure in kept}
        for when, figures in {"first": first, "last": last}.items()
    }
    record_run(config, own, place, alone, history)
    return history


def _fresh_tutor(run: Run) -> dict[str, Tree]:
    """The tutor that rows start with, of those that have one, unless it is the teacher's head."""
    if "tutor" not in run.optimizers:
        return {}
    fresh = jax.jit(lambda key: run.objective.init(key, {})["tutor"])
    return {"tutor": fresh(jax.random.key(run.seed))}


def _of_family(family: Family, built: Built, lead: RunConfig, found: FoundTeacher) -> Run:
    """The run of the lead with the objective of its family, whose numbers are told."""
    known = found.known_to(built.material.vocabulary)
    shape = built.backbone, compute_config(lead.compute, built.run.mesh)
    objective = family.objective(built.run.objective, *shape, lead.objective, known)

    def init(key, loaded):
        return {**built.run.objective.init(key, loaded), NUMBERS: loaded[NUMBERS]}

    return dataclasses.replace(
        built.run,
        objective=dataclasses.replace(objective, init=init),
        evaluate=built.material.evaluation(objective, built.run.goal, built.run.mesh),
    )


def _as_trained_alone(state: TrainState, run: Run) -> TrainState:
    """What the run of a row has of the state of its family."""
    own = run.abstract_state()
    return state.replace(
        params={group: state.params[group] for group in own.params},
        opt_state={group: state.opt_state[group] for group in own.opt_state},
        updates={name: state.updates[name] for name in own.updates},
    )


def _kept_by(alone: TrainState, state: TrainState) -> tuple[str, ...]:
    """The figures that a row has; none through a fit that it did not train."""
    has_fit = FIT in alone.params or FIT not in state.params
    return KEPT if has_fit else tuple(name for name in KEPT if not name.endswith("cosine"))
