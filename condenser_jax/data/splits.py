"""From raw spans to the two splits: cut in parallel, copies dropped, train and held-out written.

First every document is cut and written as it comes (`write_raw`). Then copies are found by their
hashes: the first document, and among the spans of kept documents the first span, of each text is
kept, train before held-out, so that no held-out span stands in train and train does not shrink.
Last, what is kept is copied to its split (`write_splits`). Memory: one task, plus a few bytes per
span and document.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.data.columns import Column, read_rows
from condenser_jax.data.cutting import Cut
from condenser_jax.data.duplicates import NEVER, SECOND, keep_one_of_equals

TRAIN, HELDOUT = "train", "heldout"
RAW_COLUMNS: dict[str, Any] = {
    "span_lengths": np.int32,
    "span_hashes": np.uint64,
    "document_spans": np.int32,
    "document_hashes": np.uint64,
    "document_ranks": np.uint8,
}


class Sizes(NamedTuple):
    """How many rows of each kind one task wrote."""

    documents: int
    spans: int
    tokens: int


class Raw(NamedTuple):
    """Everything that was cut, before copies are dropped."""

    directory: Path
    dtype: str
    tasks: list[Sizes]
    too_short: int

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Returns rows of one column."""
        dtype = RAW_COLUMNS.get(name, self.dtype)
        return read_rows(self.directory / f"{name}.bin", dtype, start, stop)


def write_raw(
    cuts: Iterable[Cut], directory: Path, dtype: str, advance: Callable[[int], Any]
) -> Raw:
    """Writes what the workers cut, in order; `advance` is told of every task's number of
    documents.
    """
    tasks: list[Sizes] = []
    too_short = 0
    with ExitStack() as stack:
        columns = {
            name: stack.enter_context(Column(directory / f"{name}.bin", kind))
            for name, kind in (RAW_COLUMNS | {"ids": dtype}).items()
        }
        for cut in cuts:
            for name, column in columns.items():
                column.append(getattr(cut, name))
            tasks.append(Sizes(len(cut.document_spans), len(cut.span_lengths), len(cut.ids)))
            too_short += cut.too_short
            advance(len(cut.document_spans))
    return Raw(directory, dtype, tasks, too_short)


class Kept(NamedTuple):
    """Which documents and spans stay, and the rank (train or held out) of every span."""

    documents: np.ndarray  # bool [D]
    spans: np.ndarray  # bool [S]
    ranks: np.ndarray  # uint8 [S]: FIRST train, SECOND held out, NEVER of a dropped document


def drop_copies(raw: Raw) -> Kept:
    """Finds the documents, then the spans, that are the first of their text."""
    document_ranks = raw.read("document_ranks")
    documents = keep_one_of_equals(raw.directory / "document_hashes.bin", document_ranks)
    ranks = np.repeat(
        np.where(documents, document_ranks, np.uint8(NEVER)), raw.read("document_spans")
    )
    return Kept(documents, keep_one_of_equals(raw.directory / "span_hashes.bin", ranks), ranks)


class SplitCounts(NamedTuple):
    """What one split holds."""

    documents: int
    documents_with_two_spans: int
    lengths: np.ndarray  # int64: number of spans of each length
    unigram: np.ndarray  # int64 [V]: number of each token


class _SplitWriter:
    """Writes one split, task by task."""

    def __init__(self, directory: Path, dtype: str, vocab_size: int) -> None:
        self.files = {
            name: Column(directory / f"{name}.bin", kind)
            for name, kind in (("ids", dtype), ("offsets", np.int64), ("documents", np.int64))
        }
        self.tokens = self.spans = self.two_spans = 0
        self.lengths = np.zeros(1, np.int64)
        self.unigram = np.zeros(vocab_size, np.int64)
        for name in ("offsets", "documents"):
            self.files[name].append(np.zeros(1, np.int64))

    def append(self, ids: np.ndarray, lengths: np.ndarray, spans: np.ndarray) -> None:
        """Appends documents with `spans` [D] > 0 spans of `lengths` [S] and their ids."""
        self.files["ids"].append(ids)
        self.files["offsets"].append(self.tokens + np.cumsum(lengths, dtype=np.int64))
        self.files["documents"].append(self.spans + np.cumsum(spans, dtype=np.int64))
        self.tokens += len(ids)
        self.spans += len(lengths)
        self.two_spans += int((spans >= 2).sum())
        self.unigram += np.bincount(ids, minlength=len(self.unigram))
        counts = np.bincount(lengths, minlength=len(self.lengths))
        counts[: len(self.lengths)] += self.lengths
        self.lengths = counts

    def close(self) -> SplitCounts:
        """Closes the files and returns what they hold."""
        for column in self.files.values():
            column.close()
        documents = self.files["documents"].rows - 1
        return SplitCounts(documents, self.two_spans, self.lengths, self.unigram)


def write_splits(raw: Raw, kept: Kept, directory: Path, vocab_size: int) -> dict[str, SplitCounts]:
    """Copies what is kept to directory/train and directory/heldout; documents without spans go."""
    writers = {
        name: _SplitWriter(directory / name, raw.dtype, vocab_size) for name in (TRAIN, HELDOUT)
    }
    document = span = token = 0
    for size in raw.tasks:
        spans = slice(span, span + size.spans)
        ids = raw.read("ids", token, token + size.tokens)
        lengths = raw.read("span_lengths", spans.start, spans.stop)
        counts = raw.read("document_spans", document, document + size.documents)
        owners = np.repeat(np.arange(size.documents), counts)
        for name, writer in writers.items():
            is_mine = kept.spans[spans] & ((kept.ranks[spans] == SECOND) == (name == HELDOUT))
            left = np.bincount(owners[is_mine], minlength=size.documents)
            writer.append(ids[np.repeat(is_mine, lengths)], lengths[is_mine], left[left > 0])
        document, span, token = document + size.documents, spans.stop, token + size.tokens
    return {name: writer.close() for name, writer in writers.items()}
