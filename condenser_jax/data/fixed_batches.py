"""Batches for evaluation: named spans in their order, the same each time."""

from collections.abc import Iterator

import numpy as np

from condenser_jax.data.hashing import hash_u64
from condenser_jax.data.masking import WORDS
from condenser_jax.data.rows import (
    NumpyBatch,
    SpanStore,
    check_spans,
    masked,
    read_beginnings,
    read_windows,
)
from condenser_jax.data.vocabulary import Vocabulary

FIXED = 14  # what a hash is drawn for


def fixed_batches(
    spans: SpanStore,
    indices: np.ndarray,
    vocabulary: Vocabulary,
    batch_size: int,
    max_length: int,
    mask_rate: float,
    seed: int,
    masking: str = WORDS,
) -> list[NumpyBatch]:
    """Returns the spans `indices` in their order as batches for evaluation, always masked alike.

    A row's mask depends on (seed, span) alone. The last batch is filled up with rows that attend
    to a lone CLS (nothing attended would be NaN) and whose masked_weights are zero.
    """
    rows = _fixed_rows(spans, indices, vocabulary, batch_size, max_length, seed)
    return [masked(ids, mask, vocabulary, mask_rate, keys, masking) for ids, mask, keys in rows]


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


def text_batches(
    texts: SpanStore, vocabulary: Vocabulary, batch_size: int, max_length: int
) -> list[NumpyBatch]:
    """Returns all texts in their order as batches to be encoded; the last batch is filled up with
    the first text.
    """
    total = len(texts.offsets) - 1
    numbers = np.arange(-(-total // batch_size) * batch_size)
    batches = []
    for rows in np.where(numbers < total, numbers, 0).reshape(-1, batch_size):
        ids, attention_mask = read_beginnings(texts, rows, vocabulary, max_length)
        batches.append({"input_ids": ids, "attention_mask": attention_mask})
    return batches


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
    check_spans([spans], max_length)
    indices = np.asarray(indices, np.int64)
    for start in range(0, len(indices), batch_size):
        span = indices[start : start + batch_size]
        keys = np.zeros(batch_size, np.uint64)
        keys[: len(span)] = hash_u64(FIXED, seed, span)
        ids = np.full((batch_size, max_length), vocabulary.pad_id, np.int32)
        attention_mask = np.zeros_like(ids)
        ids[:, 0], attention_mask[:, 0] = vocabulary.cls_id, 1
        ids[: len(span)], attention_mask[: len(span)] = read_windows(
            spans, span, keys[: len(span)], vocabulary, max_length
        )
        yield ids, attention_mask, keys
