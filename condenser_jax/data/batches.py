"""From the number of a step to the rows of its batch: random access, on any number of hosts.

Row r of step N is position p = N * B + r of an endless stream. The stream walks a new shuffle of
the spans in every epoch; which span stands at p, which window of it is read and how it is masked
are hashes of (seed, source, epoch, span). So resuming is a seek, and a host that asks for some rows
of a batch gets exactly those rows of the one global batch.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from condenser_jax.data.hashing import Word, hash_u64, integers_below, permute
from condenser_jax.data.masking import mask_batch
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError

SHUFFLE, ROW, WINDOW, FIXED = 11, 12, 13, 14  # what a hash is drawn for
SHARE_BITS = 20  # a mixture's weights are rounded to 2**-20: exact integers up to 2**43 rows

NumpyBatch = dict[str, np.ndarray]
Rows = slice | np.ndarray


class SpanStore(Protocol):
    """What batches ask of prepared spans (`store.Spans`): where they lie, and windows of them."""

    @property
    def offsets(self) -> np.ndarray: ...  # int64 [S + 1]

    def gather(
        self, indices: np.ndarray, starts: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [B, length] of span indices[b] from its token starts[b] on, right-padded,
        and the lengths int32 [B] of these windows."""
        ...


class Batches(Protocol):
    """Random access to global batches: what the loop asks of any method's data."""

    batch_size: int

    @property
    def steps_per_epoch(self) -> int: ...

    def batch(self, step: int, rows: Rows = ...) -> NumpyBatch: ...


class SpanBatches:
    """The masked batches of an endless, shuffled stream of spans, or of a weighted mixture.

    spans: one store, or (store, weight) pairs. A mixture's sources are interleaved evenly by their
    weights (no draw: after any number of rows each source has given its share to within one row
    per source before it; shares below 2**-21 are none), and each walks its own shuffles.
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
    ):
        pairs = list(spans) if isinstance(spans, Sequence) else [(spans, 1.0)]
        self.sources = [source for source, _ in pairs]
        self.shares = _nested_shares([weight for _, weight in pairs])
        _check(self.sources, max_length)
        self.vocabulary = vocabulary
        self.batch_size = batch_size
        self.max_length = max_length
        self.mask_rate = mask_rate
        self.seed = seed

    @property
    def num_spans(self) -> int:
        """Spans of all sources together: the rows of an epoch."""
        return sum(len(source.offsets) - 1 for source in self.sources)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read as many rows as there are spans, the last step running over."""
        return -(-self.num_spans // self.batch_size)

    def batch(self, step: int, rows: Rows = slice(None)) -> NumpyBatch:
        """Returns these rows of global batch `step`, arrays as docs/design.md section 5."""
        stream = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        which, position = _interleave(stream, self.shares)
        ids = np.empty((len(stream), self.max_length), np.int32)
        attention_mask = np.empty_like(ids)
        keys = np.empty(len(stream), np.uint64)
        for number, source in enumerate(self.sources):
            own = np.flatnonzero(which == number)
            span, keys[own] = self._draw(number, position[own])
            ids[own], attention_mask[own] = _read_windows(
                source, span, keys[own], self.vocabulary, self.max_length
            )
        return _masked(ids, attention_mask, self.vocabulary, self.mask_rate, keys)

    def _draw(self, number: int, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the stream of a source -> the spans there, and their rows' keys."""
        total = len(self.sources[number].offsets) - 1
        epoch, within = np.divmod(position, total)
        span = permute(within, total, hash_u64(SHUFFLE, self.seed, number, epoch))
        return span, hash_u64(ROW, self.seed, number, epoch, span)


def fixed_batches(
    spans: SpanStore,
    indices: np.ndarray,
    vocabulary: Vocabulary,
    batch_size: int,
    max_length: int,
    mask_rate: float,
    seed: int,
) -> list[NumpyBatch]:
    """Returns the spans `indices` in their order as batches for evaluation, always masked alike.

    A row's mask depends on (seed, span) alone. The last batch is filled up with rows that attend
    to a lone CLS (nothing attended would be NaN) and whose masked_weights are zero.
    """
    return [
        _masked(ids, attention_mask, vocabulary, mask_rate, keys)
        for ids, attention_mask, keys in _fixed_rows(
            spans, indices, vocabulary, batch_size, max_length, seed
        )
    ]


def unmasked_batches(
    spans: SpanStore,
    indices: np.ndarray,
    vocabulary: Vocabulary,
    batch_size: int,
    max_length: int,
    seed: int,
) -> list[NumpyBatch]:
    """Returns the spans `indices` in their order as batches to be encoded, filled up as in
    `fixed_batches`.
    """
    rows = _fixed_rows(spans, indices, vocabulary, batch_size, max_length, seed)
    return [{"input_ids": ids, "attention_mask": mask} for ids, mask, _ in rows]


def _fixed_rows(
    spans: SpanStore,
    indices: np.ndarray,
    vocabulary: Vocabulary,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (ids [B, L], attention_mask [B, L], keys [B]) of the spans `indices`, in whole
    batches.
    """
    _check([spans], max_length)
    indices = np.asarray(indices, np.int64)
    for start in range(0, len(indices), batch_size):
        span = indices[start : start + batch_size]
        keys = np.zeros(batch_size, np.uint64)
        keys[: len(span)] = hash_u64(FIXED, seed, span)
        ids = np.full((batch_size, max_length), vocabulary.pad_id, np.int32)
        attention_mask = np.zeros_like(ids)
        ids[:, 0], attention_mask[:, 0] = vocabulary.cls_id, 1
        ids[: len(span)], attention_mask[: len(span)] = _read_windows(
            spans, span, keys[: len(span)], vocabulary, max_length
        )
        yield ids, attention_mask, keys


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


def _check(sources: Sequence[SpanStore], max_length: int) -> None:
    if max_length < 3:
        raise UserError(
            f"max_length {max_length} leaves no room between [CLS] and [SEP]; use 3 or more"
        )
    for number, source in enumerate(sources):
        if len(source.offsets) < 2:
            raise UserError(
                f"data source {number} holds no spans; expected at least one: check that its "
                "documents are not empty and not all dropped as copies"
            )


def _nested_shares(weights: Sequence[float]) -> list[int]:
    """Each source's share of what the sources before it leave, in units of 2**-SHARE_BITS."""
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise UserError(
                f"mixture weight {weight} is not a positive number; "
                "remove the source or give it a weight above 0"
            )
    rest = np.cumsum(weights[::-1])[::-1]
    return [round(w / r * 2**SHARE_BITS) for w, r in zip(weights, rest, strict=True)]


def _interleave(stream: np.ndarray, shares: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the mixed stream -> (number of the source [B], position within it [B]).

    The first source takes position p where floor(share * p) steps up, and that floor is its own
    position; what it leaves is a stream again, shared out likewise among the others.
    """
    which = np.full(stream.shape, -1)
    position = stream.copy()
    for number, share in enumerate(shares):
        taken = position * share >> SHARE_BITS
        takes = (which < 0) & (((position + 1) * share >> SHARE_BITS) > taken)
        passes_on = (which < 0) & ~takes
        which[takes] = number
        position = np.where(takes, taken, np.where(passes_on, position - taken, position))
    return which, position


def _read_windows(
    source: SpanStore, span: np.ndarray, keys: Word, vocabulary: Vocabulary, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spans [B] -> unmasked input_ids and attention_mask, int32 [B, L].

    A span that is too long is cut to one random window, and that window is all that masking sees
    (the reference cuts twice, with two draws, and masks one window with the mask of another).
    """
    room = max_length - 2
    lengths = np.asarray(source.offsets[span + 1] - source.offsets[span])
    starts = integers_below(np.maximum(lengths - room, 0) + 1, WINDOW, keys)
    ids = np.full((len(span), max_length), vocabulary.pad_id, np.int32)
    ids[:, 1:-1], body = source.gather(span, starts, room)
    ids[:, 0] = vocabulary.cls_id
    ids[np.arange(len(span)), body + 1] = vocabulary.sep_id
    attention_mask = np.arange(max_length) < body[:, None] + 2
    return ids, attention_mask.astype(np.int32)


def _masked(
    ids: np.ndarray, attention_mask: np.ndarray, vocabulary: Vocabulary, rate: float, keys: Word
) -> NumpyBatch:
    return {
        "attention_mask": attention_mask,
        **mask_batch(ids, attention_mask, vocabulary, rate, keys),
    }
