"""The one table of tasks: the nine of GLUE (Wang et al. 2019), and a tiny one for every machine.

Fields and label ids are those of the Hugging Face hub and of TFDS. Figures are those of the GLUE
paper's table 1; several of a task are averaged for its score, as the leaderboard does.
"""

from typing import NamedTuple

from condenser_jax.errors import choose

HUB, TFDS = "nyu-mll/glue", "glue"  # where `hf:` and `tfds:` alone look


class Test(NamedTuple):
    """A split whose labels only the test server knows."""

    name: str  # of the data set: the task's own, but for MNLI's diagnostics
    split: str
    file: str  # as the server wants it called


class Task(NamedTuple):
    """A task of one or two sentences."""

    name: str  # the folder, and the name on the hub and in TFDS
    fields: tuple[str, ...]  # of a record: one or two texts
    labels: tuple[str, ...]  # names by id; () for a score
    figures: tuple[str, ...]  # of glue.metrics
    train_rows: int  # as published: the length of an epoch
    tests: tuple[Test, ...]
    longest: int = 128  # tokens that a text or pair needs, at most 128 as published
    dev: tuple[str, ...] = ("validation",)
    scores: tuple[float, float] = (0.0, 5.0)  # range of a score
    server_names: bool = False  # whether the server wants names of labels, or ids

    @property
    def is_regression(self) -> bool:
        """Whether a score is predicted, and no class."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Numbers that a model predicts: one for each label, or the score."""
        return len(self.labels) or 1


def _test(name: str, file: str) -> tuple[Test, ...]:
    return (Test(name, "test", file),)


_ENTAILMENT = ("entailment", "neutral", "contradiction")
NINE: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cola",
            ("sentence",),
            ("unacceptable", "acceptable"),
            ("matthews",),
            8551,
            _test("cola", "CoLA"),
            longest=64,
        ),
        Task(
            "sst2",
            ("sentence",),
            ("negative", "positive"),
            ("accuracy",),
            67349,
            _test("sst2", "SST-2"),
            longest=80,
        ),
        Task(
            "mrpc",
            ("sentence1", "sentence2"),
            ("not_equivalent", "equivalent"),
            ("f1", "accuracy"),
            3668,
            _test("mrpc", "MRPC"),
        ),
        Task(
            "stsb",
            ("sentence1", "sentence2"),
            (),
            ("pearson", "spearman"),
            5749,
            _test("stsb", "STS-B"),
        ),
        Task(
            "qqp",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            ("f1", "accuracy"),
            363846,
            _test("qqp", "QQP"),
        ),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            _ENTAILMENT,
            ("accuracy",),
            392702,
            (
                Test("mnli", "test_matched", "MNLI-m"),
                Test("mnli", "test_mismatched", "MNLI-mm"),
                Test("ax", "test", "AX"),
            ),
            dev=("validation_matched", "validation_mismatched"),
            server_names=True,
        ),
        Task(
            "qnli",
            ("question", "sentence"),
            ("entailment", "not_entailment"),
            ("accuracy",),
            104743,
            _test("qnli", "QNLI"),
            server_names=True,
        ),
        Task(
            "rte",
            ("sentence1", "sentence2"),
            ("entailment", "not_entailment"),
            ("accuracy",),
            2490,
            _test("rte", "RTE"),
            server_names=True,
        ),
        Task(
            "wnli",
            ("sentence1", "sentence2"),
            ("not_entailment", "entailment"),
            ("accuracy",),
            635,
            _test("wnli", "WNLI"),
        ),
    )
}

# Not of GLUE: which package a docstring documents. Read from what is installed, so always there.
PACKAGES = Task(
    "packages",
    ("sentence",),
    ("jax", "numpy"),
    ("accuracy",),
    1800,
    (),
    longest=64,
)
TASKS: dict[str, Task] = NINE | {PACKAGES.name: PACKAGES}


def find_task(name: str) -> Task:
    """The task of that name; raises UserError with the nearest one."""
    return TASKS[choose("GLUE task", name, TASKS)]
