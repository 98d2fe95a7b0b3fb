"""Students of one size by Tutor-KD, by each of its ablations and by the classical methods, at equal
updates of the student, batch and data, beside their teacher and a random start.

    python benchmarks/distillation.py                        # docstrings, a teacher from scratch
    python benchmarks/distillation.py --smoke                # minutes: to see that it works
    python benchmarks/distillation.py --teacher=DIR --glue=FOLDER --methods=joint,kd,minilmv2
    python benchmarks/distillation.py --size=large           # for an accelerator

A teacher that is a checkpoint without an MLM head gets one first, itself unchanged; with --glue its
students are fine-tuned on CoLA, RTE, MRPC and SST-2 (docs/glue.md says how such a folder looks).
Each seed has a split, a teacher (or head) and masks of its own. Where Tutor-KD's phases take turns,
a run has twice as many steps: the student's updates are equally many. A part is done once and found
again: the same command goes on after a kill. Writes a section of docs/results.md and appends a line
to docs/benchmarks/distillation.jsonl; in smoke size both lie below --workdir.
"""

import argparse
import functools
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from condenser_jax.environment import enable_compilation_cache, tune_process  # noqa: E402

tune_process()

from at_once import do_at_once  # noqa: E402
from distillation_arms import (  # noqa: E402
    ABLATIONS,
    JOINT,
    KL_ALONE,
    RANDOM,
    TEACHER,
    Arm,
    chosen_arms,
    student_config,
)
from distillation_picture import draw  # noqa: E402
from distillation_plan import plan_of  # noqa: E402
from distillation_report import Figures, figures_of, section_lines, section_of  # noqa: E402
from distillation_steps import (  # noqa: E402
    Given,
    check_student,
    check_tasks,
    constant_scores,
    look_at_teacher,
)
from distillation_together import FIGURES  # noqa: E402
from flag_types import count, folder, limit, listed, rate, share  # noqa: E402
from results_page import publish, told_options  # noqa: E402

from condenser_jax.command import finish, set_up_logging  # noqa: E402
from condenser_jax.errors import UserError, choose  # noqa: E402
from condenser_jax.pipeline.steps import Facts, Pipeline, Step  # noqa: E402

SMOKE = {  # what is not said otherwise
    "size": "smoke",
    "seeds": 1,
    "glue_seeds": 1,
    "source": "docstrings:jax,numpy",
    "least_accuracy": 0.0,
    "methods": ",".join(("separate", JOINT, KL_ALONE, "uniform-samples", "kd", "minilmv2")),
}
THEIR_FLAG = "--config.objective.least_accuracy"
GLUE_RATES = (1e-3, 2e-3)  # at rates of large checkpoints small students learn too little
Rows = dict[str, list[dict[str, float]]]


class Experiment:
    """All parts of all seeds, in the order in which they are done."""

    def __init__(self, args: argparse.Namespace, arms: Mapping[str, Arm], given: Given) -> None:
        self.args, self.arms, self.given = args, arms, given
        self.pipeline = Pipeline(args.workdir)
        seeds = [n for n in range(args.seeds) if args.part.endswith(f"-seed-{n}")]
        self.plans = [plan_of(args, arms, given, n) for n in seeds or range(args.seeds)]
        self.accuracies: list[float] = []
        self.rows: Rows = {}
        self.rewards: Rows = {}
        self.glue: dict[str, Any] = {}

    def run_seed(self, seed: int) -> None:
        """Teacher, students, measures; with --glue, of the first seed, fine-tuning."""
        plan = self.plans[seed]
        first: Mapping[str, float] = {}
        for name, step in plan.trained.items():
            history = self._facts(step, f"seed {seed}: {name}")
            self._note(self.rows, name, _own(history["last"]) | self._facts(plan.probed[name]))
            if name == plan.main:
                first = history["first"]
        self.accuracies.append(first["heldout/teacher_accuracy"])
        for name in (TEACHER, RANDOM):
            own = _own(first) if name == RANDOM else {}
            self._note(self.rows, name, own | self._facts(plan.probed[name]))
        if plan.rewards:
            for name, found in self._facts(plan.rewards).items():
                self._note(self.rewards, name, found)
        for name, step in plan.fine_tuned.items():
            facts = self._facts(step, f"GLUE: {name}")
            side_by_side = {row: {name: found} for row, found in facts.items()}
            by_row = side_by_side if self.args.side_by_side else {name: facts}
            for row, found in by_row.items():
                self.glue.setdefault(row, {}).update(found)

    def run_at_once(self) -> None:
        """All parts, --jobs of them at a time, of all seeds alike."""
        seeds = itertools.zip_longest(*(plan.longest_first() for plan in self.plans))
        steps = list(filter(None, itertools.chain.from_iterable(seeds)))
        quick = {step.name for plan in self.plans for step in plan.taken}
        do_at_once(self.pipeline, steps, self.args.jobs, sys.argv, quick)

    def run_part(self, name: str) -> None:
        """One part, by its name."""
        steps = {
            step.name: step
            for plan in self.plans
            for top in plan.longest_first()
            for step in (*top.after, top)
        }
        self._facts(steps[choose("part", name, steps)])

    def figures(self) -> Figures:
        """Over all seeds."""
        told = told_options(self.args)
        constant = constant_scores(self.args) if self.glue else {}
        return figures_of(told, self.accuracies, self.rows, self.rewards, self.glue, constant)

    def _facts(self, step: Step, title: str = "") -> Facts:
        if title:
            print(title, flush=True)
        try:
            return self.pipeline.result(step).facts
        except UserError as error:  # names the flag of launch/train.py
            raise UserError(str(error).replace(THEIR_FLAG, "--least_accuracy")) from error

    def _note(self, rows: Rows, name: str, found: Mapping[str, float]) -> None:
        rows.setdefault(name, []).append(dict(found))


def _own(history: Mapping[str, float]) -> dict[str, float]:
    """The figures of a run's evaluation that the table shows."""
    return {name: history[name] for name in FIGURES if name in history}


def described(args: argparse.Namespace, given: Given) -> str:
    """Teacher, students and training in a sentence."""
    arm = Arm(ABLATIONS, "", options={"schedule": "joint"})
    config = student_config(args, arm, 0, given.config)
    teacher, model, training = given.config, config.model, config.training
    return (
        f"Teacher {teacher.num_layers} layers x {teacher.hidden_size}, students "
        f"{model.num_layers} x {model.hidden_size}, {training.steps:,} updates of each in batches "
        f"of {training.batch_size} x {config.data.max_length} tokens, learning rate "
        f"{config.optimizer.learning_rate:g} but where a row says another, on {config.data.source}."
    )


def flags() -> argparse.Namespace:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=folder, default="runs/distillation", help="where every part is kept"
    )
    parser.add_argument("--size", default="small", choices=["small", "large"], help="of all")
    parser.add_argument("--smoke", action="store_true", help="the smallest size")
    parser.add_argument("--teacher", default="", help="a checkpoint; default: one from scratch")
    parser.add_argument("--source", default="docstrings:", help="what is distilled on")
    parser.add_argument("--length", type=count, default=64, help="tokens of a row")
    parser.add_argument("--methods", default="", help="rows, with commas; default: all")
    parser.add_argument("--row", action="append", default=[], help='another: TITLE={"KEY": VALUE}')
    parser.add_argument(
        "--side_by_side",
        action="store_true",
        help="rows alike but for weights train as one",
    )
    parser.add_argument(
        "--seeds", type=count, default=2, help="each with its own split and teacher"
    )
    parser.add_argument("--width", type=limit, default=0, help="of a student; 0: of the size")
    parser.add_argument("--steps", type=limit, default=0, help="of a student; 0: of the size")
    parser.add_argument("--teacher_steps", type=limit, default=0, help="the same, of the teacher")
    parser.add_argument("--batch", type=limit, default=0, help="of students; 0: of the size")
    parser.add_argument("--spans", type=limit, default=0, help="held out; 0: of the size")
    parser.add_argument("--learning_rate", type=rate, default=0.0, help="of students; 0: the same")
    parser.add_argument("--least_accuracy", type=share, default=0.1, help="of the teacher's MLM")
    parser.add_argument("--pooling", default="cls", choices=["cls", "mean"], help="of `packages`")
    parser.add_argument("--glue", default="", help="a folder of tasks to fine-tune on")
    parser.add_argument("--glue_teacher", action="store_true", help="fine-tune the teacher too")
    parser.add_argument("--glue_seeds", type=count, default=5, help="of each task")
    parser.add_argument(
        "--glue_rates",
        type=listed(rate),
        default=GLUE_RATES,
        help="learning rates of fine-tuning; each row and task has the best of its first seed",
    )
    parser.add_argument("--split", action="append", default=[], help="TASK=TRAIN:DEV, its files")
    parser.add_argument("--jobs", type=count, default=1, help="parts that are done at once")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=folder, help="the page; default: docs/results.md")
    args = parser.parse_args()
    if args.smoke:
        parser.set_defaults(**SMOKE)
        args = parser.parse_args()
    return args


def main() -> None:
    """Does the parts that are not done yet, and writes the tables."""
    args = flags()
    set_up_logging()
    enable_compilation_cache()
    arms = chosen_arms(args)
    if not args.part:
        check_tasks(args)
    given = look_at_teacher(args)
    for arm in arms.values():  # a row that cannot be trained is said before another one is
        check_student(student_config(args, arm, 0, given.config), given)
    experiment = Experiment(args, arms, given)
    if args.part:
        return experiment.run_part(args.part)
    if args.jobs > 1:
        experiment.run_at_once()
    for seed in range(args.seeds):
        experiment.run_seed(seed)
    figures = experiment.figures()
    content = section_lines(figures, arms, described(args, given))
    picture = functools.partial(draw, figures, arms)
    publish(args, "distillation", section_of(args), content, figures, picture, experiment.pipeline)


if __name__ == "__main__":
    finish(main)
