"""From the number of a step to the rows of its batch: random access, on any number of hosts.

Row r of step N is position p = N * B + r of an endless stream of rows. What stands at p, which
window of the span is read and how it is masked are hashes of (seed, source, epoch, span or
document). So resuming is a seek, and a host that asks for some rows of a batch gets exactly those
rows of the one global batch.
"""

from collections.abc import Generator, Sequence
from typing import Any, Protocol

import numpy as np

from condenser_jax.data.hashing import two_below
from condenser_jax.data.masking import WORDS
from condenser_jax.data.rows import NumpyBatch, RowReader, SpanStore
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.data.walk import Walk
from condenser_jax.errors import UserError

PAIR = 15  # what a hash is drawn for; a pair takes PAIR and PAIR + 1
MAX_DOCUMENTS = 2**31 - 1

Rows = slice | np.ndarray


class DocumentStore(SpanStore, Protocol):
    """Spans that know their documents."""

    @property
    def documents(self) -> np.ndarray:
        """int64 [D + 1]: document d has the spans documents[d]..documents[d + 1] - 1."""
        ...


class Batches(Protocol):
    """Random access to global batches: what the loop asks of any method's data."""

    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit everything once; the last may run over."""
        ...

    def batch(self, step: int, rows: Rows = ...) -> NumpyBatch:
        """These rows of global batch `step` (counted from 0), a function of (seed, step, rows)."""
        ...


class SpanBatches:
    """The masked batches of an endless, shuffled stream of spans, or of a weighted mixture.

    spans: one store, or (store, weight) pairs, interleaved as `Walk` says. masking: one of
    `masking.MASKINGS`.
    Raises UserError for a source without spans, weights that are not positive, or a max_length
    that leaves no room for a token.
    """

    def __init__(
        self,
        spans: SpanStore | Sequence[tuple[SpanStore, float]],
        vocabulary: Vocabulary,
        batch_size: int,
        max_length: int,
        mask_rate: float,
        seed: int,
        masking: str = WORDS,
    ):
        self.batch_size = batch_size
        self._reader = RowReader(spans, vocabulary, max_length, mask_rate, seed, masking)
        totals = [len(source.offsets) - 1 for source in self._reader.sources]
        self._walk = Walk(totals, self._reader.weights, seed)

    @property
    def num_spans(self) -> int:
        """Spans of all sources together: the rows of an epoch."""
        return sum(self._walk.totals)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read as many rows as there are spans, the last step running over."""
        return -(-self.num_spans // self.batch_size)

    def batch(self, step: int, rows: Rows = slice(None)) -> NumpyBatch:
        """Returns these rows of global batch `step`, arrays as docs/design.md section 5."""
        stream = _stream(step, self.batch_size, rows)
        return self._reader.read(*self._walk.at(stream))


class PairBatches:
    """The masked batches of an endless, shuffled stream of documents, two spans of each.

    Rows 2i and 2i + 1 of a batch are two distinct spans of one document, drawn anew in each epoch
    from a hash of (seed, source, epoch, document). Documents with fewer than two spans are left
    out. A batch has besides the arrays of `SpanBatches`

        document  int32 [B]   equal exactly for spans of the same document, over all sources

    spans: as for `SpanBatches`. Raises UserError as that does, and for an odd batch size, a source
    without a document of two spans, or more documents than int32 can number.
    """

    def __init__(
        self,
        spans: DocumentStore | Sequence[tuple[DocumentStore, float]],
        vocabulary: Vocabulary,
        batch_size: int,
        max_length: int,
        mask_rate: float,
        seed: int,
    ):
        check_even(batch_size)
        self.batch_size, self.seed = batch_size, seed
        self._reader = RowReader(spans, vocabulary, max_length, mask_rate, seed)
        self.sources: list[DocumentStore] = self._reader.sources
        self._usable = _usable_documents(self.sources)
        self._first_number = _first_numbers(self.sources)
        self._walk = Walk([len(usable) for usable in self._usable], self._reader.weights, seed)

    @property
    def num_documents(self) -> int:
        """Documents of two spans or more of all sources together: what an epoch reads."""
        return sum(self._walk.totals)

    @property
    def num_left_out(self) -> int:
        """Documents of fewer than two spans."""
        return int(self._first_number[-1]) - self.num_documents

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read as many documents as there are, the last step running over."""
        return -(-2 * self.num_documents // self.batch_size)

    def batch(self, step: int, rows: Rows = slice(None)) -> NumpyBatch:
        """Returns these rows of global batch `step`; any rows, also one span of a document."""
        visit, side = np.divmod(_stream(step, self.batch_size, rows), 2)
        which, epoch, thing = self._walk.at(visit)
        document, span = np.empty_like(thing), np.empty_like(thing)
        for number, source in enumerate(self.sources):
            own = np.flatnonzero(which == number)
            document[own] = self._usable[number][thing[own]]
            first, end = source.documents[document[own]], source.documents[document[own] + 1]
            drawn = two_below(end - first, PAIR, self.seed, number, epoch[own], document[own])
            span[own] = first + np.where(side[own] == 0, *drawn)
        numbers = (self._first_number[which] + document).astype(np.int32)
        return self._reader.read(which, epoch, span) | {"document": numbers}


def load_batches(
    batches: Batches, rows: Rows, start: int, stop: int, threads: int = 1, prefetch: int = 2
) -> Generator[tuple[int, NumpyBatch], None, None]:
    """Yields (step, these rows of its batch) for start <= step < stop, built ahead by grain.

    threads: how many build at once; prefetch: how many batches wait. Closing the iterator
    (`contextlib.closing`, or its end) stops the threads.
    """
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    steps = grain.MapDataset.range(start, stop)
    loaded: Any = iter(
        steps.map(lambda step: (int(step), batches.batch(int(step), rows))).to_iter_dataset(options)
    )
    try:
        yield from loaded
    finally:
        loaded.close()


def check_even(batch_size: int) -> None:
    """Raises UserError unless a batch holds whole pairs."""
    if batch_size % 2:
        raise UserError(
            f"training.batch_size {batch_size} is odd; expected an even number of rows, two "
            f"spans of each document: use {batch_size + 1}"
        )


def _stream(step: int, batch_size: int, rows: Rows) -> np.ndarray:
    """Positions int64 in the stream of rows."""
    return step * batch_size + np.arange(batch_size, dtype=np.int64)[rows]


def _usable_documents(sources: Sequence[DocumentStore]) -> list[np.ndarray]:
    """The documents of two spans or more of each source."""
    usable = [np.flatnonzero(np.diff(source.documents) >= 2) for source in sources]
    for number, documents in enumerate(usable):
        if not len(documents):
            raise UserError(
                f"none of the {len(sources[number].documents) - 1:,} documents of data source "
                f"{number} has two spans; expected documents of several: use a smaller "
                "data.max_length, another data.recipe, or longer documents"
            )
    return usable


def _first_numbers(sources: Sequence[DocumentStore]) -> np.ndarray:
    """int64 [sources + 1]: the number of each source's first document, and of all documents."""
    first = np.cumsum([0, *(len(source.documents) - 1 for source in sources)])
    if first[-1] > MAX_DOCUMENTS:
        raise UserError(
            f"the sources hold {first[-1]:,} documents; at most {MAX_DOCUMENTS:,} can be told "
            "apart: train on fewer sources"
        )
    return first
