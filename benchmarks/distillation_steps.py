"""The parts of benchmarks/distillation.py, each done once: teachers, students, their measures, the
rewards of tutors, fine-tuning on GLUE.
"""

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from distillation_arms import ARMS, JOINT, RANDOM, TEACHER, Arm, student_config, teacher_config
from distillation_family import FAMILIES, families_of
from distillation_probes import Probed, probe
from distillation_together import ROWS, train_family
from glue_together import fine_tune_together

from condenser_jax.build import build, check_objective
from condenser_jax.config import RunConfig
from condenser_jax.data.documents import SourceOptions
from condenser_jax.data.sources import open_source
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.errors import UserError
from condenser_jax.feeds.corpus import tokenizer_at
from condenser_jax.feeds.glue import read_splits
from condenser_jax.finished import read_run
from condenser_jax.glue.metrics import constant_figures
from condenser_jax.glue.report import SCORE, Cell, chosen_rate, summary
from condenser_jax.glue.tasks import find_task
from condenser_jax.glue_plan import Suite, configure_suite, protocol_of
from condenser_jax.glue_suite import read_task, run_suite
from condenser_jax.models.config import BackboneConfig
from condenser_jax.pipeline.recipe import (
    RUN,
    Results,
    changed,
    identity,
    settings_of,
    training_step,
)
from condenser_jax.pipeline.steps import Facts, Result, Step
from condenser_jax.run import train
from condenser_jax.teachers import FoundTeacher, find_teacher
from condenser_jax.training.saved import Saved
from condenser_jax.training.workdir import Workdir
from condenser_jax.warm_start import initial_checkpoint, weights_identity
from configs import glue_suite

DROPOUT = 0.1  # of fine-tuning
REWARDED = {"tutor": "tutor", "teacher": "teacher's MLM", "uniform": "uniform"}
REWARDS = ("teacher_reward", "student_reward", "reward")


class Texts(NamedTuple):
    """Of a task."""

    limit: int  # to train on; 0: all
    length: int  # tokens of a row, by BERT's vocabulary enough for every text but those of RTE


TASKS = {"cola": Texts(0, 48), "rte": Texts(0, 128), "mrpc": Texts(0, 104), "sst2": Texts(5000, 64)}


class Given(NamedTuple):
    """What is known of the teacher before anything is run."""

    config: BackboneConfig
    has_mlm_head: bool


def look_at_teacher(args: argparse.Namespace) -> Given:
    """Of a checkpoint, what lies there; else what will be trained."""
    checkpoint = initial_checkpoint(args.teacher, ("backbone", "mlm_head"))
    if checkpoint is not None:
        return Given(checkpoint.config, "mlm_head" in checkpoint.params)
    model = teacher_config(args, 0).model
    sizes = {name: getattr(model, name) for name in ("hidden_size", "num_layers", "num_heads")}
    return Given(BackboneConfig(vocab_size=1, **sizes), False)


def check_student(config: RunConfig, given: Given) -> None:
    """Raises UserError, before anything is trained, for a student that its teacher cannot teach."""
    check_objective(config, None, FoundTeacher(given.config, {}, config.objective.teacher, ""))


def teacher_step(args: argparse.Namespace, given: Given, seed: int) -> Step:
    """Trains a teacher, or its MLM head; a checkpoint with such a head is taken as it is."""
    if not given.has_mlm_head:
        name = "teacher-head" if args.teacher else "teacher"
        return training_step(f"{name}-seed-{seed}", teacher_config(args, seed))
    settings = {
        "weights": [args.teacher, weights_identity(args.teacher)],
        "config": dataclasses.asdict(given.config),
        "tokenizer": tokenizer_hash(tokenizer_at(args.teacher) or args.teacher),
    }
    return Step("teacher", lambda directory, earlier: {"given": args.teacher}, settings)


def place_of(teacher: Result) -> str:
    """Where a teacher lies."""
    return teacher.facts.get("given") or str(teacher.directory / RUN)


class Students:
    """The steps of students of one teacher, that of one seed."""

    def __init__(
        self, args: argparse.Namespace, given: Given, seed: int, arms: Mapping[str, Arm]
    ) -> None:
        self.args, self.given, self.seed = args, given, seed
        self.teacher = teacher_step(args, given, seed)
        self.families = self._families(arms) if args.side_by_side else {}

    @functools.cached_property
    def _data(self) -> list[str]:
        """What the data of all students are known by."""
        return identity(self.config(ARMS[JOINT]))

    def _settings(self, config: RunConfig) -> dict[str, Any]:
        return settings_of(config, data=self._data)

    def config(self, arm: Arm) -> RunConfig:
        """Of a student, whose teacher is not there yet."""
        return student_config(self.args, arm, self.seed, self.given.config)

    def trained(self, name: str, arm: Arm) -> Step:
        """Trains a student, by itself or beside those of its family."""
        config = self.config(arm)
        if name in self.families:
            return self._trained_beside(name, config)

        def run(directory: Path, earlier: Results) -> Facts:
            _, history = train(self._taught(config, earlier), directory / RUN, time.time())
            return {"first": history["first"], "last": history["last"]}

        return Step(f"{name}-seed-{self.seed}", run, self._settings(config), (self.teacher,))

    def _families(self, arms: Mapping[str, Arm]) -> dict[str, Step]:
        """{row: the step that trains its family}."""
        rows = {name: self.config(arm) for name, arm in arms.items()}
        leads = {name: self.config(ARMS[family.lead]) for name, family in FAMILIES.items()}
        found = {}
        for name, members in families_of(rows, leads).items():
            step = self._trained_together(name, {row: rows[row] for row in members}, leads[name])
            found |= dict.fromkeys(members, step)
        return found

    def _trained_together(self, name: str, rows: dict[str, RunConfig], lead: RunConfig) -> Step:
        """Trains a family."""

        def run(directory: Path, earlier: Results) -> Facts:
            taught = {row: self._taught(config, earlier) for row, config in rows.items()}
            return train_family(FAMILIES[name], taught, self._taught(lead, earlier), directory)

        settings = {row: self._settings(config) for row, config in rows.items()}
        return Step(f"family-{name}-seed-{self.seed}", run, settings, (self.teacher,))

    def _trained_beside(self, name: str, config: RunConfig) -> Step:
        """Takes a student from its family."""
        family = self.families[name]

        def run(directory: Path, earlier: Results) -> Facts:
            there = earlier[family.name].directory / ROWS / name
            if there.is_dir():
                there.rename(directory / RUN)
            if not (directory / RUN).is_dir():
                raise UserError(
                    f"{there} is gone, and {directory / RUN} is not there; remove "
                    f"{earlier[family.name].directory} to train its rows again"
                )
            return earlier[family.name].facts[name]

        settings = self._settings(config)
        return Step(f"{name}-seed-{self.seed}", run, settings, (self.teacher, family))

    def probed(self, arm: Arm, student: Step) -> Step:
        """Measures a student's frozen encoder."""

        def find(config: RunConfig, teacher: FoundTeacher, earlier: Results) -> Probed:
            finished = read_run(earlier[student.name].directory / RUN)
            return Probed(finished.backbone, finished.params["backbone"])

        return self._probe(student.name, arm, find, student)

    def references(self, arm: Arm) -> dict[str, Step]:
        """Measures the teacher, and the student that `arm` starts from, in the same way."""

        def itself(config: RunConfig, teacher: FoundTeacher, earlier: Results) -> Probed:
            return Probed(teacher.config, teacher.weights["backbone"])

        def start(config: RunConfig, teacher: FoundTeacher, earlier: Results) -> Probed:
            built = build(config)
            state = jax.device_get(built.run.initial_state())
            return Probed(built.backbone, state.params["backbone"])

        return {
            TEACHER: self._probe(f"teacher-seed-{self.seed}", arm, itself),
            RANDOM: self._probe(f"random-start-seed-{self.seed}", arm, start),
        }

    def rewards(self, arm: Arm, student: Step, tutors: dict[str, Step]) -> Step:
        """What tutors, the teacher's MLM and chance earn on the same held-out masks, from one
        student, that of `arm`.
        """
        config = self.config(arm)

        def run(directory: Path, earlier: Results) -> Facts:
            built = build(self._taught(config, earlier))
            shapes = built.run.abstract_state().params
            params = _last_params(earlier[student.name], shapes)
            found: Facts = {}
            for title, step in tutors.items():
                tutor = _last_params(earlier[step.name], {"tutor": shapes["tutor"]})
                figures = built.run.evaluate(params | tutor, built.run.placed)
                titles = {**REWARDED, "tutor": title}
                found |= {
                    said: {name: figures[f"heldout_{kind}/{name}"] for name in REWARDS}
                    for kind, said in titles.items()
                }
            return found

        after = (self.teacher, student, *(s for s in tutors.values() if s.name != student.name))
        settings = {"tutors": {title: step.name for title, step in tutors.items()}}
        return Step(f"rewards-seed-{self.seed}", run, settings | self._settings(config), after)

    def fine_tuned(self, name: str, arm: Arm, start: Step | None) -> Step:
        """Fine-tunes an encoder on the tasks: a student, the teacher, or what `arm` starts from.
        The first seed is fine-tuned at every rate, the others at the one that is best for it.
        """
        suites = {task: _suite(self.args, task) for task in TASKS}

        def run(directory: Path, earlier: Results) -> Facts:
            found: Facts = {}
            for task, suite in suites.items():
                begun = suite._replace(run=self._begun(suite.run, name, arm, start, earlier))
                first = _of_grid(begun, seeds=1)
                rate = chosen_rate(run_suite(first, directory / task, name).tasks[task])
                rest = _of_grid(begun, learning_rates=(rate,))
                cells = run_suite(rest, directory / task, name).tasks[task]
                found[task] = _scores(cells)
            return found

        settings = {
            task: [protocol_of(_of_grid(suite, seeds=1)), suite.grid.seeds, _hashes(suite)]
            for task, suite in suites.items()
        }
        after = (self.teacher,) if start is None else (self.teacher, start)
        size = self._settings(self.config(arm))["config"]["model"]
        slug = name.replace(" ", "-")
        return Step(f"glue-{slug}-seed-{self.seed}", run, {**settings, "student": size}, after)

    def fine_tuned_together(
        self, task: str, arms: Mapping[str, Arm], main: Arm, starts: Mapping[str, Step | None]
    ) -> Step:
        """Fine-tunes all encoders on a task, as `fine_tuned` does one of them."""
        suite = _suite(self.args, task)

        def run(directory: Path, earlier: Results) -> Facts:
            begun = {
                name: suite._replace(
                    run=self._begun(suite.run, name, arms.get(name, main), start, earlier)
                )
                for name, start in starts.items()
            }
            cells = fine_tune_together(task, begun, directory)
            return {name: _scores(found) for name, found in cells.items()}

        settings = {
            "protocol": [protocol_of(_of_grid(suite, seeds=1)), suite.grid.seeds, _hashes(suite)],
            "student": self._settings(self.config(main))["config"]["model"],
            "encoders": list(starts),
        }
        after = (self.teacher, *(start for start in starts.values() if start is not None))
        return Step(f"glue-{task}-seed-{self.seed}", run, settings, after)

    def _taught(self, config: RunConfig, earlier: Results) -> RunConfig:
        return changed(config, "objective", teacher=place_of(earlier[self.teacher.name]))

    def _probe(
        self,
        name: str,
        arm: Arm,
        find: Callable[[RunConfig, FoundTeacher, Results], Probed],
        *students: Step,
    ) -> Step:
        config = self.config(arm)

        def run(directory: Path, earlier: Results) -> Facts:
            taught = self._taught(config, earlier)
            teacher = find_teacher(taught.objective.teacher)
            probed = find(taught, teacher, earlier)
            return probe(probed, teacher, taught, packages_of(self.args), self.args.pooling)

        packages = packages_of(self.args)
        own = {"packages": [packages, _hash_of(packages)], "pooling": self.args.pooling}
        settings = own if students else own | self._settings(config)
        return Step(f"probe-{name}", run, settings, (self.teacher, *students))

    def _begun(
        self, run: RunConfig, name: str, arm: Arm, start: Step | None, earlier: Results
    ) -> RunConfig:
        """A run of fine-tuning that starts where it should, with the same dropout for all."""
        teacher = place_of(earlier[self.teacher.name])
        if name == RANDOM:
            run = dataclasses.replace(run, model=self.config(arm).model)
            run = changed(run, "data", tokenizer=tokenizer_at(teacher))
        else:
            init = teacher if start is None else str(earlier[start.name].directory / RUN)
            run = changed(run, "model", init=init)
        return changed(run, "model", hidden_dropout=DROPOUT, attention_dropout=DROPOUT)


def _scores(cells: list[Cell]) -> Facts:
    """Of the runs of one rate: median, deviation and each, at the last step."""
    scores = [cell.last[SCORE] for cell in cells]
    return {**summary(cells, SCORE)["last"], "scores": scores, "rate": cells[0].learning_rate}


def packages_of(args: argparse.Namespace) -> str:
    """The docstrings of the probe `packages`: those that are trained on, else all."""
    is_one = args.source.startswith("docstrings:") and " + " not in args.source
    return args.source if is_one else "docstrings:"


@functools.cache  # it takes .4 s
def _hash_of(docstrings: str) -> str:
    return open_source(docstrings, SourceOptions()).describe()["hash"]


def _last_params(result: Result, shapes: Any) -> dict[str, Any]:
    """Groups of the last checkpoint of a run."""
    saved = Saved(Workdir(result.directory / RUN).checkpoints)
    assert saved.latest_step is not None
    return dict(saved.restore_params(saved.latest_step, shapes))


def _suite(args: argparse.Namespace, task: str) -> Suite:
    """One task: seeds and rates as asked."""
    values = glue_suite.get_config()
    values.update({"tasks": task, "seeds": args.glue_seeds, "learning_rates": args.glue_rates})
    values.run.model.init = ""
    values.run.compute.scan_layers = False
    texts = TASKS[task]
    values.run.data.update({"source": args.glue, "train_limit": texts.limit})
    values.run.data.max_length = texts.length
    splits = splits_of(args.split)
    if task in splits:
        values.run.data.train_split, values.run.data.dev_split = splits[task]
    if args.smoke:
        values.update({"epochs": 1})
        values.run.data.update({"train_limit": 64})
    return configure_suite(values.to_dict())


def _of_grid(suite: Suite, **changes: Any) -> Suite:
    """A suite with another choice of runs."""
    return suite._replace(grid=dataclasses.replace(suite.grid, **changes))


@functools.cache  # all rows have the same tasks
def _hashes(suite: Suite) -> dict[str, str]:
    """Of the texts and labels of its task."""
    return read_task(suite, *suite.grid.names).hashes


def check_tasks(args: argparse.Namespace) -> None:
    """Raises UserError, before anything is trained, for tasks that are not to be had."""
    check_splits(args.split)
    if args.glue:
        for task in TASKS:
            _hashes(_suite(args, task))


def splits_of(asked: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{task: (train, dev)} of --split, "" being the usual file."""
    parted = (one.partition("=") for one in asked)
    return {task: files.partition(":")[::2] for task, _, files in parted}


def constant_scores(args: argparse.Namespace) -> dict[str, float]:
    """{task: score of the class that most of its training texts have, predicted for every text}."""
    found = {}
    for task in TASKS:
        config = changed(_suite(args, task).run, "objective", task=task)
        train, dev = read_splits(config)
        (measured,) = dev.values()
        figures = constant_figures(find_task(task), train.labels, measured.labels)
        found[task] = statistics.mean(figures.values())
    return found


def check_splits(splits: list[str]) -> None:
    """Raises UserError for a --split that does not say task, train and dev."""
    for split in splits:
        task, _, names = split.partition("=")
        if task not in TASKS or names.count(":") != 1:
            raise UserError(
                f"--split={split} is no choice of files; expected TASK=TRAIN:DEV, such as "
                f"mrpc=train_full:test, of the tasks {', '.join(TASKS)}."
            )
