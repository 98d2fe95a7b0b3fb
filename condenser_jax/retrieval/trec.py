"""TREC's formats: qrels (who answers what) and runs (what a system found, in order).

A run is ranked as trec_eval ranks it, whatever the ranks in its file say: by score in float32,
falling, and equal scores by document id, falling as bytes do. Whoever cuts a run to its best k uses
`ranked`, or its figures differ from trec_eval's where scores are equal.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from condenser_jax.data.documents import BadRecords
from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Qrels, Run
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
from condenser_jax.whole_files import written_whole


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
        if is_first and len(fields) == 3 and not text.strip().lstrip("+-").isdigit():
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


def read_qrels(path: str | Path, bad_share: float = BAD_SHARE) -> dict[str, dict[str, int]]:
    """Reads the judgements of a file. Raises UserError for too many broken lines."""
    bad = BadRecords(bad_share)
    qrels = _nested(sound_records(path, _Judgements(), bad))
    tell_broken(str(path), bad)
    return qrels


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
    """Parses "query Q0 document rank score tag"."""

    def __init__(self) -> None:
        self.unique = Unique("document of a query")

    def __call__(self, line: str) -> tuple[str, str, float]:
        fields = line.split()
        if len(fields) != 6:
            raise Broken(f"has {len(fields)} fields, not query, Q0, document, rank, score, tag")
        query, _, document, _, score, _ = fields
        self.unique.check((query, document))
        return query, document, number(score, "score")


def read_run(path: str | Path, bad_share: float = BAD_SHARE) -> dict[str, dict[str, float]]:
    """Reads a TREC run. Raises UserError for too many broken lines."""
    bad = BadRecords(bad_share)
    run: dict[str, dict[str, float]] = {}
    for _, (query, document, score) in sound_records(path, _RunLines(), bad):
        run.setdefault(query, {})[document] = score
    tell_broken(str(path), bad)
    return run


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Writes a TREC run, ranked; scores are written so that they are read back equal."""
    with written_whole(path) as half, open(half, "w", encoding="utf-8") as file:
        for query, scores in run.items():
            for rank, document in enumerate(ranked(scores), start=1):
                fields = (_word(query), "Q0", _word(document), rank, float(scores[document]))
                file.write(" ".join(map(str, fields)) + f" {_word(tag)}\n")


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Writes judgements in TREC's format."""
    with written_whole(path) as half, open(half, "w", encoding="utf-8") as file:
        for query, grades in qrels.items():
            for document, grade in grades.items():
                file.write(f"{_word(query)} 0 {_word(document)} {grade}\n")


def _word(text: str) -> str:
    if not text or text.split() != [text]:
        raise UserError(
            f"the id {text!r} holds white space, which separates the fields of TREC's formats; "
            "rename it"
        )
    return text
