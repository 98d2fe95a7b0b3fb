"""The records of a task: from a folder of JSON lines, the hub, TFDS, or installed docstrings."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.data.catalogues import HuggingFaceSource, TfdsSource
from condenser_jax.data.cutting import heldout_rank
from condenser_jax.data.docstrings import DocstringSource
from condenser_jax.data.documents import BadRecords, SourceOptions
from condenser_jax.errors import UserError
from condenser_jax.glue.tasks import HUB, PACKAGES, TFDS, Task
from condenser_jax.retrieval.docstring_pairs import DOCSTRINGS
from condenser_jax.retrieval.sound import (
    Broken,
    Placed,
    json_object,
    need_file,
    number,
    sound_records,
    tell_broken,
    text_field,
)

log = logging.getLogger("condenser_jax")
LABEL, NUMBER, TRAIN = "label", "idx", "train"
DEV_SHARE = 0.2  # of the modules, for the embedded task
CUT = 4  # seed of the hash that divides modules, such that both packages are in both parts


class BrokenTest(UserError):
    """A test split of which no file for the server can be made."""


class Examples(NamedTuple):
    """Texts of a split, in its order; of a test split, as the server counts them."""

    texts: tuple[list[str], ...]  # one list, or two of equal length: pairs
    labels: np.ndarray | None  # ids int64 [N], or scores float64 [N]; None where they are hidden

    def __len__(self) -> int:
        return len(self.texts[0])

    def only(self, numbers: np.ndarray) -> "Examples":
        """Some of them, in the order of `numbers`."""
        texts = tuple([side[number] for number in numbers] for side in self.texts)
        return Examples(texts, None if self.labels is None else self.labels[numbers])


class Row(NamedTuple):
    """A sound record."""

    texts: tuple[str, ...]
    label: float | None
    number: int | None = None  # in its split, where the record tells it


def read_split(
    source: str,
    task: Task,
    split: str,
    bad_share: float,
    *,
    name: str = "",
    has_labels: bool = True,
) -> Examples:
    """Reads a split of a task.

    Args:
      source: a folder with `<task>/<split>.jsonl`, perhaps compressed; "hf:" (the hub's copy, or
        `hf:NAME`, `hf:FOLDER`); "tfds:"; or "docstrings:" for the embedded task.
      bad_share: of broken records (fields, labels out of range) above which they are fatal.
      name: of the data set, where it is not the task's.
      has_labels: False for what only the test server knows, which wants a prediction on every
        record, in the order of the task: records that tell their number are put into it (TFDS
        shuffles a split when it writes it).

    Raises UserError for a source or split that is missing, empty, or broken in too many records,
    BrokenTest for a test split with any that is broken.
    """
    bad = BadRecords(bad_share if has_labels else 1.0)
    rows = [
        placed.record for placed in _read(source, task, name or task.name, split, has_labels)(bad)
    ]
    if not has_labels and bad.bad:
        raise BrokenTest(
            f"{bad.bad} of {bad.records} records of {task.name} {split} are broken, and the test "
            f"server wants a prediction on each; the first: {bad.first[0]}; repair it, or do "
            "without that split"
        )
    tell_broken(f"{task.name} {split}", bad)
    if not has_labels:
        rows = _in_order(rows, f"{task.name} {split}")
    if not rows:
        raise UserError(f"{source} has no record of {task.name} in {split}; name another source")
    texts = tuple(list(side) for side in zip(*(row.texts for row in rows), strict=True))
    kind = np.float64 if task.is_regression else np.int64
    return Examples(texts, np.array([row.label for row in rows], kind) if has_labels else None)


def _in_order(rows: list[Row], what: str) -> list[Row]:
    """Rows of a test split by their number, if they have numbers; raises BrokenTest for such as
    leave a place open. All -1, as some copies have it, are none.
    """
    numbers = [row.number for row in rows]
    if set(numbers) <= {None, -1}:
        return rows
    if sorted(-1 if number is None else number for number in numbers) != list(range(len(rows))):
        raise BrokenTest(
            f"the {len(rows)} records of {what} have numbers ({NUMBER}) that are not 0 to "
            f"{len(rows) - 1}, each once, by which a test server knows them; repair or remove "
            "them, or do without that split"
        )
    return sorted(rows, key=lambda row: row.number or 0)


Reader = Callable[[BadRecords], Iterator[Placed]]


def _read(source: str, task: Task, name: str, split: str, has_labels: bool) -> Reader:
    def parse(record: dict[str, Any]) -> Row:
        return parse_record(record, task, has_labels)

    if source.startswith(DOCSTRINGS) != (task is PACKAGES):
        raise UserError(
            f"task {task.name!r} is not to be had from {source!r}; 'docstrings:' has "
            f"{PACKAGES.name!r} alone, the others come from 'hf:', 'tfds:' or a folder"
        )
    kind, colon, rest = source.partition(":")
    if task is PACKAGES:
        if rest:
            raise UserError(
                f"task {task.name!r} is not to be had from {source!r}: its packages are "
                f"{' and '.join(task.labels)}, its labels; use 'docstrings:'"
            )
        if split not in (TRAIN, *task.dev):
            known = " and ".join((TRAIN, *task.dev))
            raise UserError(f"task {task.name!r} has no split {split!r}; it has {known}")
        return lambda bad: _sound(_docstrings(split), split, parse, bad)
    if colon and kind == "hf":
        records = HuggingFaceSource(_hub_name(rest, name), SourceOptions(split=split)).records
        return lambda bad: _sound(records, f"{name}/{split}", parse, bad)
    if colon and kind == "tfds":
        data = TfdsSource(_tfds_name(rest, name), SourceOptions(split=split)).builder
        found = data.as_data_source(split)
        records = (found[index] for index in range(len(found)))
        return lambda bad: _sound(records, f"{name}/{split}", parse, bad)
    folder = Path(source).expanduser() / name
    layout = (
        f"a folder of GLUE tasks, here {name}/{split}.jsonl (data.train_split and data.dev_split "
        "name other files)"
    )
    path = need_file(folder, f"{split}.jsonl", layout)
    return lambda bad: sound_records(path, lambda line: parse(json_object(line)), bad)


def _hub_name(rest: str, name: str) -> str:
    if os.path.isdir(os.path.expanduser(rest)):
        return os.path.join(rest, name)
    return f"{rest or HUB}:{name}"


def _tfds_name(rest: str, name: str) -> str:
    """A data set of the catalogue, or the newest version in a folder that TFDS wrote."""
    folder = Path(rest).expanduser() / name
    if not rest or not folder.is_dir():
        return f"{rest or TFDS}/{name}"
    versions = sorted(file.parent for file in folder.rglob("dataset_info.json"))
    return str(versions[-1] if versions else folder)


def _sound(
    records: Iterable[dict[str, Any]], place: str, parse: Callable, bad: BadRecords
) -> Iterator[Placed]:
    """Records that are objects already, as `sound_records` reads lines."""
    for index, record in enumerate(records):
        try:
            row = parse(record)
        except Broken as error:
            bad.skip(f"{place}:{index}", str(error))
            continue
        bad.accept()
        yield Placed(f"{place}:{index}", row)


def parse_record(record: dict[str, Any], task: Task, has_labels: bool = True) -> Row:
    """The texts and the label of a record; raises Broken with what is wrong with it."""
    decoded = {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for key, value in record.items()
    }
    texts = tuple(text_field(decoded, field) for field in task.fields)
    known = None if has_labels else _number(decoded.get(NUMBER))
    return Row(texts, _label(decoded, task) if has_labels else None, known)


def _number(told: Any) -> int | None:
    """The number of a record, written 3, 3.0 or "3"; None where there is none."""
    if told is None or told == "":
        return None
    try:
        whole = not isinstance(told, bool) and float(told) == int(float(told))
    except (ValueError, TypeError, OverflowError):
        whole = False
    if not whole:
        raise Broken(f"has {NUMBER} {told!r}; expected a whole number, or none at all")
    return int(float(told))


def _label(record: dict[str, Any], task: Task) -> float:
    if record.get(LABEL) is None:
        raise Broken(f"has no field {LABEL!r}")
    value = record[LABEL]
    if task.is_regression:
        low, high = task.scores
        score = number(value, LABEL)
        if not low <= score <= high:
            raise Broken(
                f"has label {score:g}, which is out of range; expected {low:g} to {high:g}"
            )
        return score
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as pandas writes a column that once had a gap
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        names = ", ".join(task.labels)
        raise Broken(f"has label {value!r}; expected a whole number or one of {names}")
    if not 0 <= value < len(task.labels):
        names = ", ".join(f"{place} ({name})" for place, name in enumerate(task.labels))
        raise Broken(f"has label {value}, which is out of range; expected {names}")
    return int(value)


@lru_cache(maxsize=1)
def _read_docstrings() -> list[tuple[str, str, str]]:
    """(module, summary, package) of the documents of the embedded task; a summary comes once."""
    found: dict[str, tuple[str, str, str]] = {}
    for package in PACKAGES.labels:
        for document in DocstringSource(package, SourceOptions()).documents():
            found.setdefault(document.summary, (document.group, document.summary, package))
    return list(found.values())


def _docstrings(split: str) -> Iterator[dict[str, Any]]:
    """Summaries of whole modules, which belong to one split."""
    for group, summary, package in _read_docstrings():
        if (heldout_rank(group, CUT) < DEV_SHARE) == (split != TRAIN):
            yield {PACKAGES.fields[0]: summary, LABEL: package}
