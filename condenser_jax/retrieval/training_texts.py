"""What a retriever is trained on, as text: queries, passages, and which belong together.

Read from Tevatron's JSON lines, where each query brings its passages, or from the judgements of a
collection, which names positives only; written as JSON lines again.
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from condenser_jax.data.documents import BadRecords
from condenser_jax.data.ranking_batches import Lists
from condenser_jax.errors import UserError, choose
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.kinds import KINDS, open_collection
from condenser_jax.retrieval.sound import (
    Broken,
    Unique,
    id_field,
    json_object,
    need_path,
    number,
    sound_records,
    text_field,
)
from condenser_jax.retrieval.stored import TableWriter, describe_file, map_table, store
from condenser_jax.retrieval.texts import SCHEMA, TEXTS, Text, Texts, checked_text
from condenser_jax.whole_files import packed_whole

TEVATRON = "tevatron"
QUERIES = "queries.arrow"
_NUMBERS, _SCORES = pa.list_(pa.int32()), pa.list_(pa.float32())
QUERY_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("positives", _NUMBERS),
        ("negatives", _NUMBERS),
        ("positive_scores", _SCORES),
        ("negative_scores", _SCORES),
    ]
)


class TrainingTexts(NamedTuple):
    """Queries with the numbers of their passages; scores are a cross-encoder's, of all or none."""

    queries: Texts
    passages: Texts
    positives: Lists  # every query has one or more
    negatives: Lists  # hard negatives; a query may have none


class _Scored(NamedTuple):
    text: Text
    score: float | None


def open_training(
    spec: str, split: str = "train", options: CollectionOptions | None = None
) -> TrainingTexts:
    """Opens "tevatron:FILE.jsonl", or the split of a collection ("beir:FOLDER", "docstrings:").

    Raises UserError for what is missing, unknown, or broken in too many records.
    """
    options = options or CollectionOptions()
    kind, colon, rest = spec.partition(":")
    known = [*KINDS, TEVATRON]
    if not colon:
        raise UserError(
            f"training data {spec!r} names no kind; write KIND:WHERE with one of: "
            f"{', '.join(sorted(known))}"
        )
    if choose("kind of training data", kind, known) == TEVATRON:
        return read_tevatron(rest, options.bad_share)
    return from_collection(open_collection(spec, split, options))


def from_collection(collection: Collection) -> TrainingTexts:
    """Every judged query with its relevant passages, in the order of the queries."""
    names = collection.queries.ids
    relevant = [[p for p, grade in collection.qrels.get(q, {}).items() if grade > 0] for q in names]
    if not all(relevant):
        raise UserError(
            f"{collection.spec} has queries without a relevant passage in {collection.split}; "
            "training needs judgements: use a Tevatron file or a folder with qrels"
        )
    flat = collection.corpus.positions([passage for passages in relevant for passage in passages])
    positives = Lists(_offsets(relevant), flat.astype(np.int32))
    nothing = lists_of([[]] * len(names))
    return TrainingTexts(collection.queries, collection.corpus, positives, nothing)


def lists_of(members: Sequence[Sequence[int]]) -> Lists:
    """Returns lists of passages, one for each query; without scores."""
    return Lists(_offsets(members), np.fromiter(chain(*members), np.int32))


def _offsets(members: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(list(map(len, members)))]).astype(np.int64)


def write_tevatron(path: str | Path, texts: TrainingTexts) -> None:
    """Writes what `read_tevatron` reads, without scores; compressed where the name ends in .gz.

    The file takes its name when it is whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed_whole(path) as file:
        for number, query in enumerate(texts.queries):
            record = {
                "query_id": query.id,
                "query": query.joined,
                "positive_passages": _records(texts.passages, texts.positives.of(number)),
                "negative_passages": _records(texts.passages, texts.negatives.of(number)),
            }
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _records(passages: Texts, numbers: np.ndarray) -> list[dict[str, str]]:
    found = (passages[number] for number in numbers.tolist())
    return [{"docid": text.id, "title": text.title, "text": text.text} for text in found]


def read_tevatron(path: str | Path, bad_share: float) -> TrainingTexts:
    """Reads lines {query_id, query, positive_passages, negative_passages}, the first time.

    A passage is {docid, title, text} and perhaps `score`; those of one docid are one passage, and a
    line that gives it another text than an earlier one is broken. Scores are kept when every
    passage of the file has one; else there are none. Raises UserError for too many broken lines.
    """
    path = need_path(Path(path).expanduser())

    def fill(directory: Path, bad: BadRecords) -> None:
        _fill(path, directory, bad)

    described = {"training": 2, **describe_file(path)}
    directory = store(str(path), described, fill, bad_share)
    table = map_table(directory / QUERIES)
    has_scores = not any(
        pc.any(pc.is_null(table.column(f"{name}_scores"))).as_py()
        for name in ("positive", "negative")
    )
    positives, negatives = (_lists(table, name, has_scores) for name in ("positive", "negative"))
    return TrainingTexts(Texts(directory / QUERIES), Texts(directory / TEXTS), positives, negatives)


def _fill(path: Path, directory: Path, bad: BadRecords) -> None:
    numbers: dict[str, int] = {}
    with (
        TableWriter(directory / TEXTS, SCHEMA) as passages,
        TableWriter(directory / QUERIES, QUERY_SCHEMA) as queries,
    ):
        for _, (query, *lists) in sound_records(path, _Lines(), bad):
            for text, _ in chain(*lists):
                if text.id not in numbers:
                    numbers[text.id] = passages.append(text)
            rows = [[numbers[scored.text.id] for scored in scored_list] for scored_list in lists]
            queries.append((*query, *rows, *map(_scores, lists)))


def _scores(passages: Sequence[_Scored]) -> list[float] | None:
    """The scores of all passages; None when one has none."""
    scores = [passage.score for passage in passages if passage.score is not None]
    return scores if len(scores) == len(passages) else None


def _lists(table: pa.Table, name: str, has_scores: bool) -> Lists:
    numbers = table.column(f"{name}s").combine_chunks()
    scores = table.column(f"{name}_scores").combine_chunks() if has_scores else None
    return Lists(
        numbers.offsets.to_numpy().astype(np.int64),
        numbers.values.to_numpy(),
        None if scores is None else scores.values.to_numpy(),
    )


class _Lines:
    """Parses one line of a training file into (query, positives, negatives)."""

    def __init__(self) -> None:
        self.unique = Unique("query_id")
        self._known: dict[str, int] = {}  # docid -> hash of title and text, of sound lines

    def __call__(self, line: str) -> tuple[Text, list[_Scored], list[_Scored]]:
        record = json_object(line)
        query = Text(id_field(record, "query_id"), text_field(record, "query"))
        if not query.text.strip():
            raise Broken("has an empty query")
        self.unique.check(query.id)
        positives = _passages(record, "positive_passages")
        negatives = _passages(record, "negative_passages")
        if not positives:
            raise Broken("has no positive passage")
        both = {p.text.id for p in positives} & {n.text.id for n in negatives}
        if both:
            raise Broken(f"names passage {min(both)!r} as positive and as negative")
        self._check_texts([passage.text for passage in chain(positives, negatives)])
        return query, positives, negatives

    def _check_texts(self, passages: Sequence[Text]) -> None:
        """Raises Broken where one docid has two texts, in this line or in an earlier one."""
        found: dict[str, int] = {}
        for passage in passages:
            key = hash((passage.title, passage.text))
            if found.setdefault(passage.id, key) != key:
                raise Broken(f"has two texts for docid {passage.id!r}")
            if self._known.get(passage.id, key) != key:
                raise Broken(f"has another text for docid {passage.id!r} than an earlier line")
        self._known |= found


def _passages(record: dict[str, Any], field: str) -> list[_Scored]:
    passages = record.get(field, [])
    if not isinstance(passages, list) or not all(isinstance(p, dict) for p in passages):
        raise Broken(f"field {field!r} is not a list of passages with docid and text")
    return [_passage(passage) for passage in passages]


def _passage(record: dict[str, Any]) -> _Scored:
    text = Text(
        id_field(record, "docid"), text_field(record, "text"), text_field(record, "title", "")
    )
    score = record.get("score")
    return _Scored(checked_text(text), None if score is None else number(score, "score"))
