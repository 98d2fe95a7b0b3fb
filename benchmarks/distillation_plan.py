"""Which parts benchmarks/distillation.py has, and what each of them reads."""

import argparse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distillation_arms import JOINT, KL_ALONE, RANDOM, TEACHER, Arm
from distillation_steps import TASKS, Given, Students

from condenser_jax.pipeline.steps import Step


class Plan(NamedTuple):
    """The parts of a seed."""

    main: str  # the row that references, and tutors' rewards, are measured beside
    trained: dict[str, Step]  # by row
    probed: dict[str, Step]  # by row, the references among them
    rewards: Step | None  # of tutors
    fine_tuned: dict[str, Step]  # by row; side by side, by task

    @property
    def taken(self) -> Iterator[Step]:
        """Of the rows, those that a family has trained: they take no time."""
        yield from (row for row in self.trained.values() if len(row.after) > 1)

    def longest_first(self) -> Iterator[Step]:
        """All parts, in the order to start them when several run at once: first what others wait
        for, then the longest, last the probes.
        """
        members = list(self.trained.values())
        waited_for = {step.name: step for row in members for step in row.after}
        yield from sorted(
            waited_for.values(), key=lambda step: -sum(step in row.after for row in members)
        )
        yield from sorted(members, key=lambda row: -row.settings["config"]["training"]["steps"])
        yield from self.fine_tuned.values()
        yield from filter(None, [self.rewards])
        yield from self.probed.values()


def plan_of(args: argparse.Namespace, arms: Mapping[str, Arm], given: Given, seed: int) -> Plan:
    """The parts of a seed; fine-tuning is for the first seed alone."""
    students = Students(args, given, seed, arms)
    main = JOINT if JOINT in arms else next(iter(arms))
    trained = {name: students.trained(name, arm) for name, arm in arms.items()}
    probed = {name: students.probed(arm, trained[name]) for name, arm in arms.items()}
    probed |= students.references(arms[main])
    rewards = None
    if {JOINT, KL_ALONE} <= trained.keys():
        tutors = {"the tutor": trained[JOINT], "the tutor by KL alone": trained[KL_ALONE]}
        rewards = students.rewards(arms[JOINT], trained[JOINT], tutors)
    starts: dict[str, Step | None] = {RANDOM: None, **trained}
    starts |= {TEACHER: None} if args.glue_teacher else {}
    fine_tuned = {}
    if args.glue and seed == 0 and args.side_by_side:
        fine_tuned = {
            task: students.fine_tuned_together(task, arms, arms[main], starts) for task in TASKS
        }
    elif args.glue and seed == 0:
        fine_tuned = {
            name: students.fine_tuned(name, arms.get(name, arms[main]), start)
            for name, start in starts.items()
        }
    return Plan(main, trained, probed, rewards, fine_tuned)
