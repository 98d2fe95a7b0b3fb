"""Texts of many lengths in batches of few shapes: little padding, few programs to compile.

A batch is as long as the bucket of its longest text, and all full batches have about the same
number of tokens. Texts are taken longest first, so only the last batch of all is not full.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SPECIALS = 2  # [CLS] and [SEP]
SHORTEST = 16
ALIGNED = 8  # accelerators multiply in tiles
STEPS = (4, 5, 6, 7)  # quarters of a power of two: docstrings are padded by 6 %, halves by 11 %


class TokenIds:
    """The ids of texts, joined, without specials; each cut to `room` tokens."""

    def __init__(self, ids: Iterable[Sequence[int]], room: int) -> None:
        cut = [np.array(text[:room], np.int32) for text in ids]
        self.lengths = np.array(list(map(len, cut)), np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = np.concatenate([np.zeros(0, np.int32), *cut])

    def rows(
        self, texts: np.ndarray, shape: tuple[int, int], cls_id: int, sep_id: int, pad_id: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids int32 [B, L] of `texts`, [CLS] text [SEP] padded on the right, and how many
        of each row are real, int32 [B]. Rows beyond the texts hold a lone [CLS].
        """
        ids, used = np.full(shape, pad_id, np.int32), np.ones(shape[0], np.int32)
        lengths, columns = self.lengths[texts], np.arange(shape[1] - SPECIALS)
        is_real = columns < lengths[:, None]
        places = (self.starts[texts][:, None] + columns)[is_real]
        ids[: len(texts), 1:-1][is_real] = self.flat[places]
        ids[:, 0] = cls_id
        ids[np.arange(len(texts)), lengths + 1] = sep_id
        used[: len(texts)] = lengths + SPECIALS
        return ids, used


class Bucket(NamedTuple):
    """One batch: which texts, and the shape of its arrays."""

    texts: np.ndarray  # int64, at most shape[0] of them
    shape: tuple[int, int]  # B L


def bucket_lengths(longest: int) -> np.ndarray:
    """The lengths of batches, specials included: 16, 24, 32, 40, 48, 56, 64, 80, ..., `longest`."""
    lengths = {step * 2**power for power in range(longest.bit_length()) for step in STEPS}
    kept = {n for n in lengths if SHORTEST <= n < longest and n % ALIGNED == 0}
    return np.array(sorted(kept | {longest}))


def in_buckets(
    lengths: np.ndarray, longest: int, tokens: int, multiple: int = 1
) -> Iterator[Bucket]:
    """Yields batches that hold every text once.

    Args:
      lengths: [n] tokens of each text, specials included; none above `longest`.
      longest: the last bucket.
      tokens: of a full batch, padding included; a batch has at least `multiple` rows.
      multiple: divides the number of rows.

    The number of rows depends on the length alone, unless all texts fit into one batch: then it is
    the smallest `multiple` times a power of two that holds them.
    """
    buckets = bucket_lengths(longest)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        length = int(buckets[np.searchsorted(buckets, lengths[order[start]])])
        rows = max(1, tokens // length // multiple) * multiple
        if len(order) < rows:
            needed = -(-len(order) // multiple)
            rows = min(rows, multiple * 2 ** (needed - 1).bit_length())
        yield Bucket(order[start : start + rows], (rows, length))
        start += rows
