"""TREC's formats: qrels (who answers what) and runs (what a system found, in order).

A run is ranked as trec_eval ranks it, whatever the ranks in its file say: by score in float32,
falling, and equal scores by document id, falling as bytes do. Whoever cuts a run to its best k uses
`ranked`, or its figures differ from trec_eval's where scores are equal.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from condenser_jax.data.documents import BadRecords
from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Run
from condenser_jax.retrieval.sound import (
    BAD_SHARE,
    Broken,
    Placed,
    Unique,
    checked_id,
    number,
    sound_records,
    tell_broken,
)
from condenser_jax.retrieval.texts import Texts
from condenser_jax.whole_files import packed_whole


def ranked(scores: Mapping[str, float], k: int | None = None) -> list[str]:
    """Returns document ids, best first, at most `k`: in the order in which trec_eval sees them."""
    keys = sorted(((np.float32(score), name) for name, score in scores.items()), reverse=True)
    return [name for _, name in keys[:k]]


class _Judgements:
    """Parses "query 0 document grade" (TREC, MS MARCO), or "query document grade" with a header
    (BEIR), separated by tabs or blanks; `known` holds the ids that exist.
    """

    def __init__(self, known: tuple[set[str], set[str]] | None = None) -> None:
        self.known = known
        self.is_first = True
        self.unique = Unique("judgement of")

    def __call__(self, line: str) -> tuple[str, str, int] | None:
        is_first, self.is_first = self.is_first, False
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) not in (3, 4):
            raise Broken(f"has {len(fields)} fields, not query, (0,) document, grade")
        query, document, text = fields[0], fields[-2], fields[-1]
        if is_first and len(fields) == 3 and not _is_number(text):
            return None
        grade = number(text, "grade")
        if grade != int(grade):
            raise Broken(f"grade {text!r} is not a whole number")
        query, document = checked_id(query), checked_id(document)
        self.unique.check((query, document))
        self._check_existence(query, document)
        return query, document, int(grade)

    def _check_existence(self, query: str, document: str) -> None:
        if self.known is None:
            return
        if query not in self.known[0]:
            raise Broken(f"judges query {query!r}, which does not exist")
        if document not in self.known[1]:
            raise Broken(f"judges document {document!r}, which does not exist")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_judged(
    path: str | Path, corpus: Texts, queries: Texts, bad_share: float = BAD_SHARE
) -> tuple[dict[str, dict[str, int]], Texts]:
    """Returns the judgements of what exists, and the queries with at least one relevant document.

    Judgements of ids that do not exist count as broken lines. Raises UserError for too many, and
    when no query is left.
    """
    named = [row.record for row in sound_records(path, _Judgements(), BadRecords(1.0))]
    known = (
        _existing({query for query, _, _ in named}, queries),
        _existing({document for _, document, _ in named}, corpus),
    )
    bad = BadRecords(bad_share)
    qrels = _nested(sound_records(path, _Judgements(known), bad))
    tell_broken(str(path), bad)
    qrels = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not qrels:
        raise UserError(f"{path} names no relevant document (a grade of 1 or more) for any query")
    return qrels, queries.only(list(qrels))


def _existing(ids: set[str], texts: Texts) -> set[str]:
    names = sorted(ids)
    places = texts.positions(names)
    return {name for name, place in zip(names, places, strict=True) if place >= 0}


def _nested(rows: Iterator[Placed]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for _, (query, document, value) in rows:
        found.setdefault(query, {})[document] = value
    return found


class _RunLines:
    """Parses "query Q0 document rank score tag" into `run`; `known` holds the documents that
    exist.
    """

    def __init__(self, known: set[str] | None = None) -> None:
        self.known = known
        self.run: dict[str, dict[str, float]] = {}

    def __call__(self, line: str) -> bool:
        fields = line.split()
        if len(fields) != 6:
            raise Broken(f"has {len(fields)} fields, not query, Q0, document, rank, score, tag")
        query, _, document, _, score, _ = fields
        if document in self.run.get(query, {}):
            raise Broken(f"repeats the document of a query {(query, document)!r}")
        if self.known is not None and document not in self.known:
            raise Broken(f"finds document {document!r}, which does not exist")
        self.run.setdefault(query, {})[document] = number(score, "score")
        return True


def read_run(
    path: str | Path, bad_share: float = BAD_SHARE, corpus: Texts | None = None
) -> dict[str, dict[str, float]]:
    """Reads a TREC run. Raises UserError for too many broken lines; with a `corpus` those that find
    what it does not hold are broken too.
    """
    known = None
    if corpus is not None:
        run = _read_lines(path, _RunLines(), BadRecords(1.0))
        known = _existing({document for found in run.values() for document in found}, corpus)
    bad = BadRecords(bad_share)
    run = _read_lines(path, _RunLines(known), bad)
    tell_broken(str(path), bad)
    return run


def _read_lines(path: str | Path, lines: _RunLines, bad: BadRecords) -> dict[str, dict[str, float]]:
    for _ in sound_records(path, lines, bad):
        pass
    return lines.run


def check_run(path: str | Path, names: Iterable[str]) -> None:
    """Raises UserError for what cannot be written as a run: to be asked before a search, which else
    would be lost. `names` are the ids of queries and documents, and the tag.
    """
    if str(path).endswith(".zst"):
        raise UserError(f"{path} names a file of zstandard, which is read and not written; use .gz")
    for name in names:
        _word(name)


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Writes a TREC run, ranked, compressed where the name ends in .gz; scores are written so that
    they are read back equal. Raises UserError for an id or tag with white space.
    """
    with packed_whole(path) as file:
        for query, scores in run.items():
            for rank, document in enumerate(ranked(scores), start=1):
                fields = (_word(query), "Q0", _word(document), rank, float(scores[document]))
                file.write((" ".join(map(str, fields)) + f" {_word(tag)}\n").encode())


def _word(text: str) -> str:
    if not text or text.split() != [text]:
        raise UserError(
            f"the id or tag {text!r} holds white space, which separates the fields of TREC's "
            "formats; rename it"
        )
    return text
