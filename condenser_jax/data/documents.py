"""What a source yields and how it is read: documents, options, broken records."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from condenser_jax.errors import UserError, choose

TEXT_LAYOUTS = ("lines", "paragraphs")
EARLY_CHECK = 1000  # records after which too many broken ones end the run without reading the rest
SHOWN_BAD_RECORDS = 5
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can write one, UTF-8 cannot


class Document(NamedTuple):
    """One document: paragraphs separated by a blank line.

    `key` is unique within the source; all documents of a `group` are held out together or not at
    all; `summary` (docstrings) repeats the first paragraph of `text`.
    """

    key: str
    group: str
    text: str
    summary: str = ""


@dataclass(frozen=True)
class SourceOptions:
    """How records become documents; every kind of source reads what concerns it."""

    text_layout: str = (
        "lines"  # text: one document per line, or "paragraphs": separated by blank lines
    )
    text_field: str = "text"  # jsonl, parquet, hf, tfds: the field that holds the text
    bad_share: float = 0.01  # the share of broken records above which reading stops
    split: str = "train"  # hf, tfds: which split

    def __post_init__(self) -> None:
        choose("text_layout", self.text_layout, TEXT_LAYOUTS)


class Unreachable(UserError):
    """A source that lies elsewhere, and cannot be asked now."""


class BadRecords:
    """Counts broken records, remembers the first few, and stops the run when they are too many."""

    def __init__(self, bad_share: float) -> None:
        self.bad_share = bad_share
        self.records = 0
        self.bad = 0
        self.first: list[str] = []

    def accept(self) -> None:
        """Counts a sound record."""
        self.records += 1

    def skip(self, place: str, reason: str) -> None:
        """Counts a broken record at `place` ("file:line")."""
        self.records += 1
        self.bad += 1
        if len(self.first) < SHOWN_BAD_RECORDS:
            self.first.append(f"{place} {reason}")
        if self.records >= EARLY_CHECK:
            self.check()

    def check(self) -> None:
        """Raises UserError when the share of broken records is above `bad_share`."""
        if self.bad > self.bad_share * self.records:
            raise UserError(
                f"{self.bad} of {self.records} records are broken, above bad_share "
                f"{self.bad_share:g}; the first: {self.first[0]}; repair it or raise bad_share"
            )


class Source(Protocol):
    """What `prepare` asks of a source."""

    bad: BadRecords  # of the latest pass of documents()

    def documents(self) -> Iterator[Document]:
        """Streams the documents in a fixed order, from the start at every call."""

    def describe(self) -> dict[str, Any]:
        """What the text depends on, as JSON: the same description means the same documents."""


def field_text(record: Any, field: str, place: str, bad: BadRecords) -> str | None:
    """Returns the text of `record[field]`; None, and counted in `bad`, when there is none.

    Raises UserError, with the names of the fields there are, when the first record of all lacks it.
    """
    if not isinstance(record, dict):
        bad.skip(place, f"is a {type(record).__name__}, not an object with fields")
        return None
    value = record.get(field)
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        if not value.isascii() and LONE_SURROGATE.search(value):
            bad.skip(place, f"field {field!r} holds half a character (a lone surrogate)")
            return None
        bad.accept()
        return value
    if field not in record:
        names = ", ".join(sorted(map(str, record))) or "none"
        if bad.records == 0:
            raise UserError(
                f"{place} has no field {field!r}; its fields are: {names}; set text_field"
            )
        bad.skip(place, f"has no field {field!r}")
    else:
        bad.skip(place, f"field {field!r} is a {type(value).__name__}, not a text")
    return None
