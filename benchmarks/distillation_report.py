"""The section of docs/results.md that benchmarks/distillation.py writes: means and standard
deviations over seeds, and differences seed by seed, for every seed has its own teacher.
"""

import argparse
import ast
import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillation_arms import ABLATIONS, JOINT, OTHERS, OWN, RANDOM, TEACHER, TUTOR_KD, Arm
from distillation_steps import REWARDS, TASKS, splits_of
from results_page import section_on

from condenser_jax.glue.tasks import find_task

SECTIONS = {  # of docs/results.md: with --teacher or without
    False: ("distillation", "Distillation, from a teacher of this size"),
    True: ("distillation-from-a-checkpoint", "Distillation of a checkpoint"),
}
REFERENCES = "references"
CONSTANT = "most frequent class"  # of a task's training texts, predicted whatever the text
GROUPS = (REFERENCES, TUTOR_KD, ABLATIONS, OTHERS, OWN)
COLUMNS = {  # figure -> heading
    "heldout_teacher/auc": "own AUC, teacher's words",
    "heldout_uniform/auc": "own AUC, uniform words",
    "heldout_teacher/cosine": "cosine",
    "ratio probe, teacher": "probe AUC, teacher's words",
    "ratio probe, uniform": "probe AUC, uniform words",
    "packages": "packages",
}
COMPARED = ("ratio probe, teacher", "ratio probe, uniform", "packages")  # what every row has
Spread = tuple[float, float | None]  # mean, standard deviation over seeds; None of one seed
PerSeed = Mapping[str, Sequence[Mapping[str, float]]]  # row -> figures of each seed


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is kept as JSON."""

    options: dict[str, str]
    teacher_accuracy: Spread
    rows: dict[str, dict[str, Spread]]  # name -> figure
    differences: dict[str, dict[str, Spread]]  # to Tutor-KD joint, name -> figure
    rewards: dict[str, dict[str, Spread]]  # who puts words in -> kind of reward
    glue: dict[str, dict[str, Any]]  # name -> task -> median, sd, scores
    constant: dict[str, float] = dataclasses.field(default_factory=dict)  # task -> see CONSTANT


def section_of(args: argparse.Namespace) -> tuple[str, str]:
    """Name and title of the section: an experiment of another size, of some rows or of another
    number of updates leaves that of all rows in the usual size alone.
    """
    name, title = SECTIONS[bool(args.teacher)]
    if args.size == "large":
        name, title = f"{name}-large", f"{title} (large)"
    if args.methods:
        name, title = f"{name}-some-rows", f"{title}: some rows"
    if args.steps:
        name, title = f"{name}-{args.steps}-updates", f"{title}, {args.steps:,} updates"
    return section_on((name, title), args.source)


def figures_of(
    options: dict[str, str],
    accuracies: Sequence[float],
    rows: PerSeed,
    rewards: PerSeed,
    glue: Mapping[str, Any],
    constant: Mapping[str, float] | None = None,
) -> Figures:
    """What was found, over seeds."""
    differences = {}
    if JOINT in rows:
        for name, seeds in rows.items():
            if name != JOINT:
                pairs = zip(seeds, rows[JOINT], strict=True)
                differences[name] = _spreads([_minus(a, b) for a, b in pairs])
        differences = {name: found for name, found in differences.items() if found}
    means = {name: _spreads(seeds) for name, seeds in rows.items()}
    earned = {name: _spreads(seeds) for name, seeds in rewards.items()}
    return Figures(
        options,
        spread(accuracies),
        means,
        differences,
        earned,
        dict(glue),
        dict(constant or {}),
    )


def spread(values: Sequence[float]) -> Spread:
    """(mean, sample standard deviation), None of one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def section_lines(figures: Figures, arms: Mapping[str, Arm], students: str) -> Iterator[str]:
    """What the section says.

    Args:
      students: their size, their teacher's, and how they were trained, in words.
    """
    accuracy, seeds = figures.teacher_accuracy, int(figures.options["seeds"])
    own = "a split and masks" if figures.options["teacher"] else "a split, a teacher and masks"
    several = f"Seeds: {seeds}, mean ± standard deviation; each has {own} of its own."
    yield (
        f"{students} {several if seeds > 1 else 'One seed.'} The teacher's MLM names "
        f"{accuracy[0]:.1%} of the masked held-out tokens."
    )
    yield ""
    yield from _table(figures.rows, arms, COLUMNS)
    yield ""
    yield (
        "*Own AUC*: the student's ratio head as a sign that the teacher's ratio is at least 1/2, "
        "on held-out words put in by the teacher's MLM, and uniformly; only students with such a "
        "head have it. *Probe AUC*: the same by a logistic regression on the frozen last state, "
        "which every encoder has. *Cosine*: of last states, through the fit where there is one. "
        "*Packages*: share of held-out paragraphs whose package a regression on the frozen encoder "
        f"finds (pooling {figures.options['pooling']}). MiniLM and MiniLMv2 do not train what "
        "follows the last layer's attention, so probes of frozen states say little of them."
    )
    unprobed = [title_of(name, arms) for name in _unprobed(figures.rows, arms)]
    if unprobed:
        yield ""
        yield f"Trained, and not probed: {', '.join(unprobed)}."
    if figures.differences:
        yield ""
        yield "Minus Tutor-KD joint, seed by seed (same split, teacher and masks):"
        yield ""
        compared = {name: COLUMNS[name] for name in COMPARED}
        yield from _table(figures.differences, arms, compared, sign="+")
    if figures.rewards:
        yield ""
        yield (
            "Rewards of the words put in on the same held-out masks, judged by one student, that "
            "of Tutor-KD joint; the tutor by KL alone had the same start, data and steps:"
        )
        yield ""
        yield "| words of | teacher reward | student reward | total |"
        yield "|---|---|---|---|"
        for name, found in sorted(figures.rewards.items(), key=lambda row: -row[1]["reward"][0]):
            yield f"| {name} | {' | '.join(_said(found[kind]) for kind in REWARDS)} |"
    if figures.glue:
        yield from _glue(figures, arms)


def _unprobed(rows: Mapping[str, Mapping[str, Spread]], arms: Mapping[str, Arm]) -> list[str]:
    """Rows without probe figures: none, unless the experiment was cut short before its probes."""
    return [name for name in in_order(rows, arms) if not rows[name].keys() & set(COMPARED)]


def _glue(figures: Figures, arms: Mapping[str, Arm]) -> Iterator[str]:
    options = figures.options
    runs = next(iter(next(iter(figures.glue.values())).values()))["scores"]
    given = ast.literal_eval(options["glue_rates"])
    rates = f"Learning rate {', '.join(f'{rate:g}' for rate in given)}"
    if len(given) > 1:
        rates += ", whichever is best on those same texts for a row and task with the first seed"
    some = (
        "" if options.get("smoke") == "True" else f"; SST-2 trained on {TASKS['sst2'].limit} texts"
    )
    splits = splits_of(ast.literal_eval(options.get("split", "[]")))
    others = "".join(
        f"; {find_task(task).tests[0].file} trained on {train or 'train'} and measured on "
        f"{dev or 'dev'}"
        for task, (train, dev) in splits.items()
    )
    always = "of the training texts, predicted for every text"
    yield ""
    yield (
        "Fine-tuned, from seed 0 of distillation: median ± standard deviation over "
        f"{len(runs)} seed(s) at the last step, on the dev set (CoLA Matthews, MRPC mean of F1 and "
        f"accuracy, RTE and SST-2 accuracy{some}{others}). {rates}."
        + (f" *{CONSTANT.capitalize()}*: {always}." if figures.constant else "")
    )
    yield ""
    yield f"| | {' | '.join(TASKS)} | mean |"
    yield f"|---|{'---|' * (len(TASKS) + 1)}"
    if figures.constant:
        scores = [figures.constant[task] for task in TASKS]
        cells = [f"{score:.3f}" for score in (*scores, statistics.mean(scores))]
        yield f"| {CONSTANT} | {' | '.join(cells)} |"
    for name in in_order(figures.glue, arms):
        found = figures.glue[name]
        cells = [_said((found[t]["median"], found[t]["sd"])) for t in TASKS]
        mean = statistics.mean(found[task]["median"] for task in TASKS)
        yield f"| {title_of(name, arms)} | {' | '.join(cells)} | {mean:.3f} |"
    if len(given) > 1:
        yield ""
        yield "Learning rates chosen:"
        yield ""
        yield f"| | {' | '.join(TASKS)} |"
        yield f"|---|{'---|' * len(TASKS)}"
        for name in in_order(figures.glue, arms):
            chosen = [f"{figures.glue[name][task]['rate']:g}" for task in TASKS]
            yield f"| {title_of(name, arms)} | {' | '.join(chosen)} |"


def _table(
    rows: Mapping[str, Mapping[str, Spread]],
    arms: Mapping[str, Arm],
    columns: Mapping[str, str],
    sign: str = "",
) -> Iterator[str]:
    """Rows by group, a line in italics before each."""
    yield f"| | {' | '.join(columns.values())} |"
    yield f"|---|{'---|' * len(columns)}"
    last = ""
    for name in in_order(rows, arms):
        group = group_of(name, arms)
        if group != last:
            yield f"| *{group}* |{' |' * len(columns)}"
        last = group
        cells = (_said(rows[name].get(figure), sign) for figure in columns)
        yield f"| {title_of(name, arms)} | {' | '.join(cells)} |"


def in_order(names: Mapping[str, Any], arms: Mapping[str, Arm]) -> list[str]:
    """Rows as the tables have them."""
    return sorted(names, key=lambda name: GROUPS.index(group_of(name, arms)))


def group_of(name: str, arms: Mapping[str, Arm]) -> str:
    """To which of GROUPS a row belongs."""
    return REFERENCES if name in (TEACHER, RANDOM) else arms[name].group


def title_of(name: str, arms: Mapping[str, Arm]) -> str:
    """What people call a row."""
    return name if name in (TEACHER, RANDOM) else arms[name].title


def _said(found: Spread | None, sign: str = "") -> str:
    if found is None:
        return "-"
    mean, sd = found
    return f"{mean:{sign}.3f}" if sd is None else f"{mean:{sign}.3f} ± {sd:.3f}"


def _minus(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a[name] - b[name] for name in COMPARED if name in a and name in b}


def _spreads(seeds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Of the figures that every seed has: an AUC is none where there is nothing to tell apart."""
    shared = (n for n in seeds[0] if all(not math.isnan(found.get(n, math.nan)) for found in seeds))
    return {name: spread([found[name] for found in seeds]) for name in shared}
