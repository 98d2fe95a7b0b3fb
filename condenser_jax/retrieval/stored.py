"""Records read once and kept: an Arrow file in the cache, mapped into memory, random access.

A collection may hold ten million passages: as Python strings they would fill a machine. So the
first reading checks them and writes them to the cache, whatever their format and compression;
every later one maps that file, and memory holds what is looked at. The name of what is kept is a
hash of everything that it depends on.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from condenser_jax.data.built_once import built_once
from condenser_jax.data.documents import BadRecords
from condenser_jax.data.files import fingerprint
from condenser_jax.environment import cache_directory
from condenser_jax.errors import UserError
from condenser_jax.retrieval.sound import tell_broken

FORMAT = 1  # raise it when readers change, so that everything is read anew
BATCH_ROWS = 8192
CARD = "card.json"


def describe_file(path: Path) -> dict[str, Any]:
    """What a file's content is known by; a file that was written again counts as another."""
    status = path.stat()
    return {
        "name": path.name,
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "fingerprint": fingerprint(str(path)),
    }


def store(
    what: str,
    described: dict[str, Any],
    fill: Callable[[Path, BadRecords], None],
    bad_share: float,
) -> Path:
    """Returns the directory that `fill` filled, now or in an earlier run.

    Args:
      what: the records' origin, for messages.
      described: all that the records depend on, as JSON.
      fill: writes tables into the directory and counts its records, sound and broken.
      bad_share: the share of broken records above which a UserError is raised.

    Raises UserError also when there is no sound record, and for a full disk.
    """
    text = json.dumps([FORMAT, described], sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    target = cache_directory() / "collections" / key
    with built_once(target) as partial:
        if partial is not None:
            _build(what, fill, BadRecords(bad_share), partial)
    tell_broken(what, _remembered(target, bad_share))
    return target


def _build(
    what: str, fill: Callable[[Path, BadRecords], None], bad: BadRecords, directory: Path
) -> None:
    fill(directory, bad)
    bad.check()
    if bad.records == bad.bad:
        raise UserError(f"{what} holds no record; check the path")
    card = {"what": what, "records": bad.records, "bad": bad.bad, "first": bad.first}
    (directory / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _remembered(directory: Path, bad_share: float) -> BadRecords:
    card = json.loads((directory / CARD).read_text(encoding="utf-8"))
    bad = BadRecords(bad_share)
    bad.records, bad.bad, bad.first = card["records"], card["bad"], card["first"]
    return bad


class TableWriter:
    """Writes an Arrow file row by row, holding a few thousand rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self._waiting: list[tuple[Any, ...]] = []
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)

    def append(self, row: tuple[Any, ...]) -> int:
        """Appends a row, in the order of the schema; returns its number."""
        self._waiting.append(row)
        if len(self._waiting) == BATCH_ROWS:
            self._flush()
        self.rows += 1
        return self.rows - 1

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_batch(as_batch(self._waiting, self.schema))
            self._waiting = []

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file, self._writer:
            if error is None:
                self._flush()


def write_table(path: Path, schema: pa.Schema, rows: Iterable[tuple[Any, ...]]) -> None:
    """Writes rows, as tuples in the order of the schema."""
    with TableWriter(path, schema) as writer:
        for row in rows:
            writer.append(row)


def as_batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Returns rows, at least one, column by column."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def map_table(path: Path) -> pa.Table:
    """Opens an Arrow file without reading it: its pages come when they are looked at."""
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
