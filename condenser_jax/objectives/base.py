"""What a training method is: groups of parameters, phases, and pure loss functions. The loop knows
nothing else.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from condenser_jax.errors import UserError
from condenser_jax.models.dropout import Dropout
from condenser_jax.types import Array, Batch, Counts, Frozen, Mean, Params, Scalar

PhaseName = str


class Loss(NamedTuple):
    """What one phase minimises on this batch (or on this part of it), and its metrics."""

    value: Scalar
    metrics: dict[str, Mean]


Losses = Callable[[Params, Frozen, Batch, Counts, Dropout | None], dict[PhaseName, Loss]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A loss and the parameter groups that it may move."""

    name: PhaseName  # metric prefix, own counter of updates
    trains: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which phases are active at which step: first the prelude, once; then the cycle, for ever."""

    cycle: tuple[tuple[PhaseName, ...], ...]
    prelude: tuple[tuple[tuple[PhaseName, ...], int], ...] = ()  # (phases, number of steps)

    def active(self, step: int) -> tuple[PhaseName, ...]:
        """The phases of step `step`, counted from 0."""
        for phases, steps in self.prelude:
            if step < steps:
                return phases
            step -= steps
        return self.cycle[step % len(self.cycle)]

    def begins(self, name: PhaseName) -> int:
        """The first step of a phase, counted from 0."""
        before = 0
        for phases, steps in self.prelude:
            if steps and name in phases:
                return before
            before += steps
        return before + [name in phases for phases in self.cycle].index(True)


@dataclasses.dataclass(frozen=True)
class Objective:
    """A method as data. `losses` are weighted sums over `counts`: parts of a batch add up."""

    init: Callable[[Array, Params], Params]  # (key, groups that were loaded) -> all groups
    counts: Callable[[Batch], Counts]  # denominators of the uncut global batch
    losses: Losses
    phases: tuple[Phase, ...]
    schedule: Schedule
    exports: tuple[str, ...]  # groups that become the Hugging Face checkpoint
    predict: Mapping[str, Callable]  # what evaluators may call: (params, frozen, batch) -> arrays
    accumulates: bool = True  # False where the loss reads the batch as a whole: a contrast
    apart: tuple[str, ...] = ()  # groups that are players of their own, whoever trains them

    def phase(self, name: PhaseName) -> Phase:
        """The phase of that name."""
        return next(phase for phase in self.phases if phase.name == name)

    def groups_of(self, active: tuple[PhaseName, ...]) -> tuple[str, ...]:
        """The groups that the active phases train, sorted."""
        return tuple(sorted({group for name in active for group in self.phase(name).trains}))

    def players(self, active: tuple[PhaseName, ...]) -> tuple[tuple[str, ...], ...]:
        """The groups that the active phases train, put together where the same ones train them, but
        for those `apart`: each player is clipped by itself.
        """
        by_phases: dict[tuple[str, ...], list[str]] = {}
        for group in self.groups_of(active):
            trainers = tuple(name for name in active if group in self.phase(name).trains)
            player = ("apart", group) if group in self.apart else trainers
            by_phases.setdefault(player, []).append(group)
        return tuple(tuple(player) for player in by_phases.values())


class Goal(NamedTuple):
    """The held-out figure that names the best checkpoint."""

    figure: str
    lower_is_better: bool = True

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other`; a nan is neither better nor worse."""
        return value < other if self.lower_is_better else value > other


def updates_of(objective: Objective, steps: int) -> dict[str, int]:
    """Updates that each group receives in `steps` steps: the horizon of its learning rate."""
    schedule = objective.schedule
    counts: dict[str, int] = {group: 0 for phase in objective.phases for group in phase.trains}

    def add(active: tuple[PhaseName, ...], times: int) -> None:
        for group in objective.groups_of(active):
            counts[group] += times

    left = steps
    for active, length in schedule.prelude:
        add(active, min(left, length))
        left -= min(left, length)
    for place, active in enumerate(schedule.cycle):
        add(active, left // len(schedule.cycle) + (place < left % len(schedule.cycle)))
    return counts


def check_steps(objective: Objective, steps: int) -> None:
    """Refuses runs that end before one of their phases begins."""
    for phase in objective.phases:
        first = objective.schedule.begins(phase.name)
        if first >= steps:
            raise UserError(
                f"training.steps is {steps}, but the phase {phase.name!r} begins after {first} "
                "steps: it would train nothing; train longer, or shorten what comes before it."
            )


def check_accumulation(objective: Objective, accumulate: int) -> None:
    """Refuses gradient accumulation where a loss reads its batch as a whole."""
    if accumulate > 1 and not objective.accumulates:
        raise UserError(
            f"training.accumulate is {accumulate}, but this objective reads its batch as a whole "
            "(a contrast, or a mean of rewards), and parts of a batch would be read apart; use "
            "accumulate 1, and for a contrast gradient caching (compute.chunk_size)."
        )
