"""Runs of one shape as one run: their states stand in arrays with a leading axis, the step is
mapped over it, and the loop and its checkpoints are the usual ones.

A small step is bound by the launches of its kernels, on a GPU hundreds of a few microseconds each;
side by side, runs share them, and what reads no weights of theirs, such as a teacher's pass on the
batch, is computed once. Each becomes what it would have become by itself
(tests/unit/test_distillation_family.py).
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.data.batches import Batches, Rows
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.loop import Loop, Run
from condenser_jax.training.progress import Progress
from condenser_jax.training.sharding import replicated
from condenser_jax.training.signals import graceful_stop
from condenser_jax.training.state import TrainState
from condenser_jax.training.step import Dials, Step, dials_of
from condenser_jax.types import Batch, Frozen, Params, Tree


class Member(NamedTuple):
    """What tells a run from those beside it."""

    name: str
    seed: int
    learning_rate: float
    loaded: Params  # groups that start from a checkpoint, the same ones for all
    reads: int = 0  # which stream of batches


class Streams:
    """Several streams of batches as one: arrays [B, streams, ...]."""

    def __init__(self, streams: Sequence[Batches]) -> None:
        self.streams, self.batch_size = streams, streams[0].batch_size
        self.steps_per_epoch = streams[0].steps_per_epoch

    def batch(self, step: int, rows: Rows = slice(None)) -> NumpyBatch:
        """These rows of a global batch of each stream."""
        parts = [stream.batch(step, rows) for stream in self.streams]
        return {name: np.stack([part[name] for part in parts], 1) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class SideBySide(Run):
    """Members as one run, whole on every device. Its metrics are means over them."""

    members: tuple[Member, ...] = ()

    def create(self, key: jax.Array, loaded: Params) -> TrainState:
        """The states before the first step; each member has the key of its own seed."""
        del key
        keys = jnp.stack([jax.random.key(member.seed) for member in self.members])
        return jax.vmap(super().create)(keys, loaded)

    def make_dials(self) -> Dials:
        """Those of all members."""
        return stacked([dials_of(member.seed, member.learning_rate) for member in self.members])

    def places(self, tree: Tree) -> Tree:
        """Every device has everything."""
        return jax.tree.map(lambda leaf: replicated(self.mesh), tree)

    def step_of(self, active: tuple[str, ...]) -> Step:
        """The step, mapped over the members."""
        one = super().step_of(active)
        reads = np.array([member.reads for member in self.members])
        has_streams = isinstance(self.batches, Streams)

        def step(
            states: TrainState, frozen: Frozen, batch: Batch, dials: Dials
        ) -> tuple[TrainState, Any]:
            if has_streams:
                batch = jax.tree.map(lambda parts: jnp.moveaxis(parts[:, reads], 1, 0), batch)
            axes = (0, None, 0 if has_streams else None, 0)
            states, metrics = jax.vmap(one, in_axes=axes)(states, frozen, batch, dials)
            return states, jax.tree.map(lambda parts: parts.sum(0), metrics)

        return step


def side_by_side(run: Run, members: Sequence[Member], streams: Sequence[Batches]) -> SideBySide:
    """The members as one run; they share all of `run` but what a `Member` has.

    Args:
      streams: of batches, from which each member reads one.
    """
    shared = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    loaded = [member.loaded for member in members]
    shared["loaded"] = jax.tree.map(lambda *leaves: np.stack(leaves), *loaded)
    shared["batches"] = streams[0] if len(streams) == 1 else Streams(streams)
    shared["evaluate"] = _of_each(run, members)
    shared["tokens_per_step"] *= len(members)
    return SideBySide(**shared, members=tuple(members))


def _of_each(run: Run, members: Sequence[Member]) -> Any:
    """The evaluation of each member: its figures under its name, and the mean of their goals."""

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        figures, goals = {}, []
        for number, member in enumerate(members):
            own = jax.device_put(one_of(params, number), replicated(run.mesh))
            found = run.evaluate(own, frozen)
            figures |= {f"{member.name}/{name}": value for name, value in found.items()}
            goals.append(found[run.goal.figure])
        return figures | {run.goal.figure: float(np.mean(goals))}

    return evaluate


def train_side_by_side(run: SideBySide, place: Path | None = None) -> tuple[TrainState, dict]:
    """Brings a run to its end, or goes on where it was stopped; returns its states, stacked, and
    the figures of its members ({"member/figure": value}).

    Args:
      place: of its checkpoints on the way; None: there are none. The end is not saved.

    Raises Preempted and RunFailed as any run does.
    """
    with graceful_stop() as stop, contextlib.ExitStack() as stack:
        start, state, history = 0, None, {"evaluated": 0}  # the start is not measured
        saves: Any = _Nowhere()
        if place is not None:
            saves = stack.enter_context(_OnTheWay(place, run.steps))
            restored = saves.restore_latest(run.abstract_state())
            if restored:
                start, state, history = restored[0], restored[1], restored[2]["history"]
        state = run.initial_state() if state is None else state
        loop = Loop(run, state, saves, [_Paced(run.steps, start)], stop, history=history)
        loop.train(start, time.time())
    return loop.state, loop.history["last"]


class _OnTheWay(Checkpoints):
    """Checkpoints but for the last."""

    def __init__(self, place: Path, steps: int) -> None:
        super().__init__(place, keep=1)
        self._steps = steps

    def save(
        self, step: int, state: Tree, record: Mapping[str, Any], metric: float | None = None
    ) -> None:
        """Saves unless this is the end."""
        if step < self._steps:
            super().save(step, state, record, metric)


class _Nowhere:
    """No checkpoints."""

    latest_step = None

    def save(self, *of_a_step: Any) -> None:
        """Nothing is kept."""

    def wait(self) -> None:
        """Nothing is written."""


class _Paced(Progress):
    """Progress without what evaluations found: there is too much of it."""

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """Says nothing."""


def stacked(trees: Sequence[Tree]) -> Tree:
    """One tree, its arrays with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def one_of(tree: Tree, place: int) -> Tree:
    """One of a stacked tree."""
    return jax.tree.map(lambda leaves: leaves[place], tree)
