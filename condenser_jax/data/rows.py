"""From a span to a row of a batch: [CLS] window [SEP] [PAD]..., masked or as it is."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from condenser_jax.data.hashing import Word, hash_u64, integers_below
from condenser_jax.data.masking import WORDS, mask_batch
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError

ROW, WINDOW = 12, 13  # what a hash is drawn for

NumpyBatch = dict[str, np.ndarray]


class SpanStore(Protocol):
    """What rows ask of prepared spans (`store.Spans`): where they lie, and windows of them."""

    @property
    def offsets(self) -> np.ndarray:
        """int64 [S + 1]: span s is the tokens offsets[s]..offsets[s + 1] - 1 of all joined."""
        ...

    def gather(
        self, indices: np.ndarray, starts: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [B, length] of span indices[b] from its token starts[b] on, right-padded,
        and the lengths int32 [B] of these windows."""
        ...


Store = TypeVar("Store", bound=SpanStore)


def check_spans(sources: Sequence[SpanStore], max_length: int) -> None:
    """Raises UserError for rows without room for a token, or a source without spans."""
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


def read_beginnings(
    source: SpanStore, span: np.ndarray, vocabulary: Vocabulary, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spans [B] -> input_ids and attention_mask, int32 [B, L]; one that is too long loses its
    end.
    """
    return _framed(source, span, np.zeros_like(span), vocabulary, max_length)


def read_windows(
    source: SpanStore, span: np.ndarray, keys: Word, vocabulary: Vocabulary, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spans [B] -> unmasked input_ids and attention_mask, int32 [B, L].

    A span that is too long is cut to one random window, and that window is all that masking sees
    (the reference cuts twice, with two draws, and masks one window with the mask of another).
    """
    lengths = np.asarray(source.offsets[span + 1] - source.offsets[span])
    room = max_length - 2
    starts = integers_below(np.maximum(lengths - room, 0) + 1, WINDOW, keys)
    return _framed(source, span, starts, vocabulary, max_length)


def _framed(
    source: SpanStore, span: np.ndarray, starts: np.ndarray, vocabulary: Vocabulary, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """[CLS] window [SEP] [PAD]..., and the attention mask."""
    ids = np.full((len(span), length), vocabulary.pad_id, np.int32)
    ids[:, 1:-1], body = source.gather(span, starts, length - 2)
    ids[:, 0] = vocabulary.cls_id
    ids[np.arange(len(span)), body + 1] = vocabulary.sep_id
    attention_mask = np.arange(length) < body[:, None] + 2
    return ids, attention_mask.astype(np.int32)


def masked(
    ids: np.ndarray,
    attention_mask: np.ndarray,
    vocabulary: Vocabulary,
    rate: float,
    keys: Word,
    masking: str = WORDS,
) -> NumpyBatch:
    """The arrays of docs/design.md section 5, of unmasked rows; keys [B] decide the masks."""
    return {
        "attention_mask": attention_mask,
        **mask_batch(ids, attention_mask, vocabulary, rate, keys, masking),
    }


class RowReader(Generic[Store]):
    """Reads and masks the spans of weighted sources, each row by its own key.

    spans: one store, or (store, weight) pairs.
    """

    def __init__(
        self,
        spans: Store | Sequence[tuple[Store, float]],
        vocabulary: Vocabulary,
        max_length: int,
        mask_rate: float,
        seed: int,
        masking: str = WORDS,
    ) -> None:
        pairs = list(spans) if isinstance(spans, Sequence) else [(spans, 1.0)]
        self.sources, self.weights = [source for source, _ in pairs], [w for _, w in pairs]
        check_spans(self.sources, max_length)
        self.vocabulary, self.max_length = vocabulary, max_length
        self.mask_rate, self.seed, self.masking = mask_rate, seed, masking

    def read(self, which: np.ndarray, epoch: np.ndarray, span: np.ndarray) -> NumpyBatch:
        """The masked rows of spans [B], given the numbers and epochs of their sources [B]."""
        ids = np.empty((len(span), self.max_length), np.int32)
        attention_mask = np.empty_like(ids)
        keys = hash_u64(ROW, self.seed, which, epoch, span)
        for number, source in enumerate(self.sources):
            own = np.flatnonzero(which == number)
            ids[own], attention_mask[own] = read_windows(
                source, span[own], keys[own], self.vocabulary, self.max_length
            )
        return masked(ids, attention_mask, self.vocabulary, self.mask_rate, keys, self.masking)
