"""Pairs and triplets of sentences: semantic textual similarity, and sections of articles."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from condenser_jax.data.documents import BadRecords
from condenser_jax.errors import UserError
from condenser_jax.retrieval.sound import (
    BAD_SHARE,
    Broken,
    file_of_split,
    json_object,
    number,
    plain_name,
    sound_records,
    table_fields,
    tell_broken,
    text_field,
)

T = TypeVar("T")
MAX_SCORE = 5.0  # of the STS tasks: the same meaning; 0 is unrelated
ENDINGS = (".tsv", ".csv", ".jsonl")


class ScoredPair(NamedTuple):
    """Two sentences and how alike people found them, from 0 to 5."""

    sentence1: str
    sentence2: str
    score: float


class Triplet(NamedTuple):
    """An anchor, a sentence that belongs with it, and one that does not."""

    anchor: str
    positive: str
    negative: str


def find_sentences(where: str, split: str) -> Path:
    """Returns the file `where`, or that of a split in the folder `where`: SPLIT.tsv, .csv or
    .jsonl. Raises UserError with what there is, for neither.
    """
    path = Path(where).expanduser()
    if where and path.is_dir():
        return file_of_split(path, "", split, ENDINGS)
    if not where or not path.is_file():
        raise UserError(
            f"{where or 'nothing'} is neither a file of sentences nor a folder of them; name a "
            "folder that holds test.tsv, .csv or .jsonl, or such a file"
        )
    return path


def read_sts(path: str | Path, bad_share: float = BAD_SHARE) -> list[ScoredPair]:
    """Reads the columns score, sentence1 and sentence2 of .tsv, .csv or .jsonl.

    Raises UserError for a missing column and for too many broken lines.
    """

    def pair(fields: dict[str, str]) -> ScoredPair:
        score = number(fields["score"], "score")
        if not 0 <= score <= MAX_SCORE:
            raise Broken(f"score {score:g} is not within 0 and {MAX_SCORE:g}")
        return ScoredPair(fields["sentence1"], fields["sentence2"], score)

    return _read(path, ("score", "sentence1", "sentence2"), pair, bad_share)


def read_triplets(path: str | Path, bad_share: float = BAD_SHARE) -> list[Triplet]:
    """Reads the columns anchor, positive and negative of .tsv, .csv or .jsonl.

    Raises UserError for a missing column and for too many broken lines.
    """
    return _read(path, Triplet._fields, lambda fields: Triplet(**fields), bad_share)


def _read(
    path: str | Path, names: Sequence[str], make: Callable[[dict[str, str]], T], bad_share: float
) -> list[T]:
    bad = BadRecords(bad_share)
    fields_of = _object if plain_name(path).endswith(".jsonl") else _Columns(path, names)

    def parse(line: str) -> T | None:
        fields = fields_of(line)
        if fields is None:
            return None
        chosen = {name: text_field(fields, name) for name in names}
        for name, text in chosen.items():
            if not text.strip():
                raise Broken(f"has an empty {name}")
        return make(chosen)

    found = [row.record for row in sound_records(path, parse, bad)]
    tell_broken(str(path), bad)
    if not found:
        raise UserError(f"{path} holds no record; check the path")
    return found


def _object(line: str) -> dict[str, Any]:
    """A JSON object, with its score as text."""
    record = json_object(line)
    return record | {"score": str(record["score"])} if "score" in record else record


class _Columns:
    """Parses lines under a header that names the columns; quotes in .tsv files are text."""

    def __init__(self, path: str | Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names
        is_csv = plain_name(path).endswith(".csv")
        self.format: dict[str, Any] = (
            {"delimiter": ","} if is_csv else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        )
        self.header: list[str] = []

    def __call__(self, line: str) -> dict[str, Any] | None:
        fields = table_fields(line, **self.format)
        if self.header:
            if len(fields) != len(self.header):
                raise Broken(f"has {len(fields)} fields, its header {len(self.header)}")
            return dict(zip(self.header, fields, strict=True))
        self.header = [name.strip() for name in fields]
        missing = [name for name in self.names if name not in self.header]
        if missing:
            raise UserError(
                f"{self.path} has no column {missing[0]!r}; its first line names: "
                f"{', '.join(self.header)[:200]}; expected a header with {', '.join(self.names)}"
            )
        return None
