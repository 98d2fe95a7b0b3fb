"""Runs of one shape as one program: their states stand in arrays with a leading axis, and the step
is mapped over it.

A small step is bound by the launches of its kernels, on a GPU a thousand of a few microseconds
each; side by side, runs share them, and what reads no weights of theirs, such as a teacher's pass
on the batch, is computed once.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.data.batches import Batches, load_batches
from condenser_jax.training.loop import IN_FLIGHT, Run
from condenser_jax.training.state import TrainState
from condenser_jax.training.step import Dials, make_step
from condenser_jax.types import Params, Tree

SAID_EVERY = 15.0  # seconds


def stacked(trees: Sequence[Tree]) -> Tree:
    """One tree, its arrays with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def one_of(tree: Tree, place: int) -> Tree:
    """One of a stacked tree."""
    return jax.tree.map(lambda leaves: leaves[place], tree)


def initial_states(run: Run, seeds: Sequence[int], loaded: Sequence[Params]) -> TrainState:
    """The states before the first step, stacked.

    Args:
      loaded: the groups of each that start from a checkpoint, the same groups for all.
    """
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    create = jax.jit(jax.vmap(run.create))
    return create(keys, jax.tree.map(lambda *leaves: np.stack(leaves), *loaded))


def train_side_by_side(
    run: Run,
    states: TrainState,
    dials: Sequence[Dials],
    batches: Sequence[Batches],
    reads: Sequence[int],
    said: str,
) -> TrainState:
    """Brings runs that differ in state, dials and data to their end; returns their states, stacked.
    All phases of the objective are active in every step.

    Args:
      run: what they share.
      dials: of each.
      batches: what there is to read, each once per step.
      reads: which of `batches` each run reads.
      said: what the lines of progress begin with.
    """
    (active,) = run.objective.schedule.cycle
    step = make_step(run.objective, run.optimizers, active, clip_norm=run.clip_norm)
    is_shared = len(batches) == 1

    def steps(states: TrainState, frozen: Any, read: Any, dials: Dials, reads: Any):
        mine = one_of(read, 0) if is_shared else jax.tree.map(lambda parts: parts[reads], read)
        axes = (0, None, None if is_shared else 0, 0)
        return jax.vmap(step, in_axes=axes)(states, frozen, mine, dials)

    began = time.monotonic()
    told = stacked(dials), np.asarray(reads)
    example = states, run.placed, _stacked_rows(batches, 0), *told
    compiled = jax.jit(steps, donate_argnums=0).lower(*example).compile()
    print(f"{said}: compiled in {time.monotonic() - began:.0f} s", flush=True)
    return _run(run, compiled, states, told, batches, said)


def _run(
    run: Run,
    compiled: jax.stages.Compiled,
    states: TrainState,
    told: tuple[Dials, np.ndarray],
    batches: Sequence[Batches],
    said: str,
) -> TrainState:
    began = said_at = time.monotonic()
    flying: list[Any] = []
    with contextlib.closing(_read(batches, run)) as loader:
        for number, read in loader:
            states, metrics = compiled(states, run.placed, read, *told)
            flying.append(next(iter(metrics.values())))
            if len(flying) > IN_FLIGHT:
                jax.block_until_ready(flying.pop(0))
            if time.monotonic() - said_at > SAID_EVERY or number + 1 == run.steps:
                said_at = time.monotonic()
                pace = (number + 1) / (said_at - began)
                done = f"step {number + 1:,} of {run.steps:,}"
                print(f"{said}: {done}, {pace:.0f} a second", flush=True)
    assert bool(states.finite.all()), f"{said}: not finite at steps {states.step}"
    return states


class _Together:
    """Several streams of batches as one."""

    def __init__(self, batches: Sequence[Batches]) -> None:
        self.batches = batches

    def batch(self, step: int, rows: Any) -> Any:
        return _stacked_rows(self.batches, step)


def _stacked_rows(batches: Sequence[Batches], step: int) -> Any:
    parts = [one.batch(step, slice(None)) for one in batches]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def _read(batches: Sequence[Batches], run: Run) -> Iterator[tuple[int, Any]]:
    yield from load_batches(_Together(batches), slice(None), 0, run.steps, threads=run.threads)
