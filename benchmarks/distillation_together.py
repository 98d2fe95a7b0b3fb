"""Rows of one family, trained as one program; each gets the work directory that it would have had
by itself.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from distillation_family import NUMBERS, Family
from side_by_side import initial_states, one_of, train_side_by_side

from condenser_jax.build import build, compute_config, start_of_tutor
from condenser_jax.config import RunConfig
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.distillation import FIT
from condenser_jax.run import record_run
from condenser_jax.teachers import Found, find_teacher
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import replicated
from condenser_jax.training.state import TrainState
from condenser_jax.training.step import dials_of
from condenser_jax.types import Tree

FIGURES = ("heldout_teacher/auc", "heldout_uniform/auc", "heldout_teacher/cosine")
KEPT = (*FIGURES, "heldout/teacher_accuracy")  # figures in which no weight of a loss is


def train_family(
    family: Family, rows: Mapping[str, RunConfig], lead: RunConfig, place: Path
) -> dict[str, Any]:
    """Trains the rows of a family, and writes the work directory of each to `place` / its name;
    returns {row: {"first", "last"}}, held-out figures.
    """
    built, found = build(lead), find_teacher(lead.objective.teacher)
    known = found.known_to(built.material.vocabulary)
    shape = built.backbone, compute_config(lead.compute, built.run.mesh)
    objective = family.objective(built.run.objective, *shape, lead.objective, known)
    loaded = [
        {
            **built.run.loaded,
            **_tutor(built.run, config, found),
            NUMBERS: jax.tree.map(jnp.float32, family.numbers_of(config.objective)),
        }
        for config in rows.values()
    ]
    run = _of_family(built.run, objective)
    states = initial_states(run, [lead.seed] * len(rows), loaded)
    start = jax.device_get(one_of(states, 0).params)  # the student of all is the same
    dials = [dials_of(config.seed, config.optimizer.learning_rate) for config in rows.values()]
    reads = [0] * len(rows)
    states = train_side_by_side(run, states, dials, [run.batches], reads, ", ".join(rows))
    evaluate = built.material.evaluation(objective, run.goal, run.mesh)
    first = evaluate(jax.device_put(start, replicated(run.mesh)), run.placed)
    facts = {}
    for number, (name, config) in enumerate(rows.items()):
        state, own = one_of(states, number), build(config)
        last = evaluate(jax.device_put(state.params, replicated(run.mesh)), run.placed)
        alone = _as_trained_alone(state, own.run)
        kept = [figure for figure in _kept_by(alone, state) if figure in last]
        history = {
            when: {figure: figures[figure] for figure in kept}
            for when, figures in {"first": first, "last": last}.items()
        }
        record_run(config, own, place / name, alone, history)
        facts[name] = history
    return facts


def _tutor(run: Run, config: RunConfig, found: Found) -> dict[str, Tree]:
    """The tutor that a row starts with, of those that have one."""
    if "tutor" not in run.optimizers:
        return {}
    fresh = jax.jit(lambda key: run.objective.init(key, {})["tutor"])
    return start_of_tutor(config.objective, found) or {"tutor": fresh(jax.random.key(config.seed))}


def _of_family(run: Run, objective: Objective) -> Run:
    """The run with the objective of the family, whose numbers are told."""

    def init(key, loaded):
        return {**run.objective.init(key, loaded), NUMBERS: loaded[NUMBERS]}

    return dataclasses.replace(run, objective=dataclasses.replace(objective, init=init))


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
