"""The tasks of launch/evaluate.py by name, with the flags that each of them reads; what they share
of flags and files.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.tasks.cls_attention import report_cls_attention
from condenser_jax.tasks.contract import Report, Task
from condenser_jax.tasks.open_qa import report_open_qa
from condenser_jax.tasks.packages import report_packages
from condenser_jax.tasks.retrieval import report_retrieval
from condenser_jax.tasks.sections import report_sections
from condenser_jax.tasks.sts import report_sts
from condenser_jax.training.workdir import write_json
from condenser_jax.whole_files import check_folder

READING = tuple(field.name for field in fields(CollectionOptions))  # how data are read
SENTENCES = ("data", "split", "pooling", "passage_prefix", "baseline", *READING)
SEARCH = (*SENTENCES, "query_prefix", "run", "bm25", "english", "vectors", "trec")

TASKS: dict[str, Task] = {
    "retrieval": Task(report_retrieval, (*SEARCH, "k")),
    "open_qa": Task(report_open_qa, SEARCH),
    "sts": Task(report_sts, SENTENCES),
    "sections": Task(report_sections, SENTENCES),
    "packages": Task(report_packages, ("data", "split", "pooling", "passage_prefix", *READING)),
    "cls_attention": Task(report_cls_attention, ("data", "limit", "max_length")),
}


def check_flags(task: str, given: Sequence[str]) -> None:
    """Raises UserError for a flag that was given and that the task does not read."""
    for name in given:
        if name not in TASKS[task].flags:
            known = ", ".join(f"--{flag}" for flag in TASKS[task].flags)
            raise UserError(f"--{name} means nothing to task {task}; it reads {known}")


def check_prefix(prefix: Path) -> None:
    """Raises UserError where `write_files` cannot write, before the work."""
    check_folder(prefix.parent, f"--output={prefix}", "--output")


def write_files(report: Report, prefix: Path) -> list[Path]:
    """Writes PREFIX.json and the report's other files, each whole or not at all; returns them."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    written = [prefix.with_name(f"{prefix.name}.json")]
    write_json(written[0], report.figures)
    for ending, write in report.files.items():
        path = prefix.with_name(prefix.name + ending)
        half = path.with_name(f"{path.name}.half")
        write(half)
        half.replace(path)
        written.append(path)
    return written
