"""Runs of one shape as one run: their states stand in arrays with a leading axis, the step is
mapped over it, and the loop and its checkpoints are the usual ones.

A small step is bound by the launches of its kernels, on a GPU hundreds of a few microseconds each;
side by side, runs share them, and what reads no weights of theirs, such as a teacher's pass on the
batch, is computed once. Each becomes what it would have become by itself
(tests/unit/test_distillation_family.py).
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.data.batches import Batches, Rows
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.errors import RunFailed
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.loop import Loop, Run
from condenser_jax.training.progress import Progress
from condenser_jax.training.sharding import replicated
from condenser_jax.training.signals import StopRequest, graceful_stop
from condenser_jax.training.state import TrainState
from condenser_jax.training.step import Dials, Step, dials_of
from condenser_jax.types import Batch, Frozen, Params, Tree


class Member(NamedTuple):
    """What tells a run from those beside it."""

    name: str
    seed: int
    learning_rate: float
    loaded: Params  # groups that start from a checkpoint, the same ones for all
    batches: Batches | None = None  # of its own; None: those that all share


class OfEach:
    """The batches of all members as one: arrays [B, members, ...]."""

    def __init__(self, batches: Sequence[Batches]) -> None:
        self.streams = list({id(one): one for one in batches}.values())
        self.reads = [self.streams.index(one) for one in batches]
        self.batch_size = batches[0].batch_size
        self.steps_per_epoch = batches[0].steps_per_epoch

    def batch(self, step: int, rows: Rows = slice(None)) -> NumpyBatch:
        """These rows of a global batch of each member."""
        read = [stream.batch(step, rows) for stream in self.streams]
        parts = [read[number] for number in self.reads]
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
        has_own = isinstance(self.batches, OfEach)

        def step(
            states: TrainState, frozen: Frozen, batch: Batch, dials: Dials
        ) -> tuple[TrainState, Any]:
            if has_own:
                batch = jax.tree.map(lambda parts: jnp.moveaxis(parts, 1, 0), batch)
            axes = (0, None, 0 if has_own else None, 0)
            states, metrics = jax.vmap(one, in_axes=axes)(states, frozen, batch, dials)
            return states, jax.tree.map(lambda parts: parts.sum(0), metrics)

        return step


def side_by_side(run: Run, members: Sequence[Member]) -> SideBySide:
    """The members as one run; they share all of `run` but what a `Member` has."""
    assert not run.patience, "patience would be that of the mean over members"
    shared = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    loaded = [member.loaded for member in members]
    shared["loaded"] = jax.tree.map(lambda *leaves: np.stack(leaves), *loaded)
    own = [member.batches for member in members if member.batches is not None]
    assert len(own) in (0, len(members)), "batches of some members, but not of all"
    shared["batches"] = OfEach(own) if own else run.batches
    shared["evaluate"] = _of_each(run, members)
    shared["tokens_per_step"] *= len(members)
    return SideBySide(**shared, members=tuple(members))


def _of_each(run: Run, members: Sequence[Member]) -> Callable[[Params, Frozen], dict[str, float]]:
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


def train_side_by_side(
    run: SideBySide, place: Path | None = None
) -> tuple[TrainState, dict[str, float]]:
    """Brings a run to its end, or goes on where it was stopped; returns its states, stacked, and
    the figures of its members ({"member/figure": value}).

    Args:
      place: of its checkpoints on the way; the end is not saved. None: there are none, and a stop
        is no reason to wait.

    Raises Preempted as any run does, and RunFailed with the names of the members that failed.
    """
    fresh = {"evaluated": 0}  # the start is not measured
    if place is None:
        return _to_the_end(run, _Nowhere(), StopRequest(), 0, run.initial_state(), fresh)
    with graceful_stop() as stop, _OnTheWay(place, run.steps) as saves:
        restored = saves.restore_latest(run.abstract_state())
        if restored is None:
            return _to_the_end(run, saves, stop, 0, run.initial_state(), fresh)
        start, state, record = restored
        return _to_the_end(run, saves, stop, start, state, record["history"])


def _to_the_end(
    run: SideBySide,
    saves: Any,
    stop: StopRequest,
    start: int,
    state: TrainState,
    history: dict[str, Any],
) -> tuple[TrainState, dict[str, float]]:
    loop = Loop(run, state, saves, [_Paced(run.steps, start)], stop, history=history)
    try:
        loop.train(start, time.time())
    except RunFailed as error:
        finite = np.asarray(loop.state.finite)
        failed = [m.name for m, good in zip(run.members, finite, strict=True) if not good]
        raise RunFailed(f"{', '.join(failed)}, beside others: {error}") from error
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


def figures_under(figures: Mapping[str, float], start: str) -> dict[str, float]:
    """The figures whose names begin so, without that beginning."""
    return {
        name.removeprefix(start): value for name, value in figures.items() if name.startswith(start)
    }


def stacked(trees: Sequence[Tree]) -> Tree:
    """One tree, its arrays with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def one_of(tree: Tree, place: int) -> Tree:
    """One of a stacked tree."""
    return jax.tree.map(lambda leaves: leaves[place], tree)
