"""Records out of files, each sound or named as broken: file, line and reason.

A format is a function from one line to one record that raises `Broken` with the reason. Whatever
is broken is left out and counted by `BadRecords`, which ends the reading above a stated share.
"""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from condenser_jax.data.documents import LONE_SURROGATE, BadRecords
from condenser_jax.data.lines import read_lines, refuse_binary
from condenser_jax.errors import UserError

PACKED = ("", ".gz", ".zst")  # endings that every file may carry
BAD_SHARE = 0.01  # of the records of a file may be broken, unless it is said otherwise
log = logging.getLogger("condenser_jax")
T = TypeVar("T")
csv.field_size_limit(2**31 - 1)  # a passage may be longer than the 131,072 characters of default


class Broken(Exception):
    """A record that cannot be used; the message completes "file:line ..."."""


class Placed(NamedTuple):
    """A sound record and its "file:line"."""

    place: str
    record: Any


def find_file(folder: Path, name: str) -> Path | None:
    """Returns `folder`/`name`, plain or compressed; None when there is none."""
    for ending in PACKED:
        path = folder / f"{name}{ending}"
        if path.is_file():
            return path
    return None


def need_file(folder: Path, name: str, layout: str) -> Path:
    """Returns what `find_file` finds. Raises UserError with what there is and what a folder of
    this `layout` holds.
    """
    found = find_file(folder, name)
    if found is None:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a directory; expected {layout}")
        there = ", ".join(sorted(os.listdir(folder))[:20]) or "nothing"
        raise UserError(f"{folder} has no {name} (nor .gz, .zst), but {there}; expected {layout}")
    return found


def need_path(path: str | Path) -> Path:
    """Returns the path of a file that is there. Raises UserError when it is not."""
    if not Path(path).is_file():
        raise UserError(f"{path} is not a file; check the path")
    return Path(path)


def file_of_split(folder: Path, before: str, split: str, endings: tuple[str, ...]) -> Path:
    """Returns `folder`/`before`SPLIT with one of `endings`, plain or compressed. Raises UserError
    with the splits that there are.
    """
    for ending in endings:
        path = find_file(folder, f"{before}{split}{ending}")
        if path is not None:
            return path
    names = {plain_name(path) for path in folder.glob(f"{before}*") if path.is_file()}
    splits = {n[len(before) : -len(e)] for n in names for e in endings if n.endswith(e)}
    raise UserError(
        f"{folder} has no split {split!r} ({before}{split}{endings[0]}); "
        f"it has: {', '.join(sorted(splits)) or 'none'}"
    )


def plain_name(path: str | Path) -> str:
    """Returns a file's name without the ending of its compression."""
    name = Path(path).name
    return name.removesuffix(".gz").removesuffix(".zst")


def sound_records(
    path: str | Path, parse: Callable[[str], T | None], bad: BadRecords
) -> Iterator[Placed]:
    """Yields the record of every line that is not blank; `parse` returns None for a header.

    What `parse` finds broken is counted in `bad`. Raises UserError for a file that is missing,
    binary or damaged.
    """
    path = need_path(path)
    refuse_binary(str(path))
    for place, line in read_lines(str(path), path.name, bad):
        if not line.strip():
            continue
        try:
            record = parse(line)
        except Broken as error:
            bad.skip(place, str(error))
            continue
        if record is not None:
            bad.accept()
            yield Placed(place, record)


def tell_broken(what: str, bad: BadRecords) -> None:
    """Raises UserError above the share that `bad` allows; below it, logs what is left out."""
    bad.check()
    if bad.bad:
        first = "; ".join(bad.first)
        log.warning(
            "%s: %d of %d records are broken and left out: %s", what, bad.bad, bad.records, first
        )


def table_fields(line: str, **layout: Any) -> list[str]:
    """Returns the fields of a line of a table, as `csv.reader` reads it with `layout`."""
    try:
        return next(csv.reader([line], **layout))
    except csv.Error as error:
        raise Broken(f"is no line of a table: {error}") from error


def json_object(line: str) -> dict[str, Any]:
    """Returns the JSON object of a line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Broken(f"is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise Broken(f"is a {type(record).__name__}, not an object with fields")
    return record


def text_field(record: dict[str, Any], field: str, default: str | None = None) -> str:
    """Returns the text of a field; `default`, where there is one, for what is absent or null."""
    value = record.get(field)
    if value is None and default is not None:
        return default
    if value is None:
        names = ", ".join(sorted(map(str, record))) or "none"
        raise Broken(f"has no field {field!r}; its fields are: {names}")
    if not isinstance(value, str):
        raise Broken(f"field {field!r} is a {type(value).__name__}, not a text")
    if not value.isascii() and LONE_SURROGATE.search(value):
        raise Broken(f"field {field!r} holds half a character (a lone surrogate)")
    return value


def id_field(record: dict[str, Any], field: str) -> str:
    """Returns an id, which may be written as a number."""
    value = record.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return checked_id(text_field(record, field))


def checked_id(value: str) -> str:
    """Returns an id without the white space around it."""
    if not value.strip():
        raise Broken("has an empty id")
    return value.strip()


def number(text: Any, what: str) -> float:
    """Returns a finite number, of text or of JSON."""
    try:
        value = float(text)
    except (TypeError, ValueError) as error:
        raise Broken(f"{what} {text!r} is not a number") from error
    if not abs(value) < float("inf"):
        raise Broken(f"{what} {text!r} is not finite")
    return value


class Unique:
    """Refuses what was seen before: about 120 bytes for each id, while a file is read."""

    def __init__(self, what: str = "id") -> None:
        self.what = what
        self._seen: set[Any] = set()

    def check(self, key: Any) -> None:
        """Raises Broken for a key that came before."""
        if key in self._seen:
            raise Broken(f"repeats the {self.what} {key!r}")
        self._seen.add(key)
