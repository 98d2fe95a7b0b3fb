"""Exact copies, found out of core: 64-bit hashes on disk, one range of them at a time.

Among 25 million spans (10 GB of text) two different ones share a hash with probability 2e-5.
"""

from pathlib import Path

import numpy as np

from condenser_jax.data.columns import read_chunks

BUCKET_ROWS = 1 << 22  # hashes that are sorted in memory at once: about 200 MB with their indices

FIRST, SECOND, NEVER = 0, 1, 2  # ranks: kept in preference, kept if no FIRST is equal, left out


def keep_one_of_equals(
    hashes: Path, ranks: np.ndarray, bucket_rows: int = BUCKET_ROWS
) -> np.ndarray:
    """Returns bool [N]: True for one row of each set of equal hashes, the first of the lowest rank.

    `hashes` is a column of uint64 [N]; `ranks` is uint8 [N] of FIRST, SECOND and NEVER.
    """
    keep = np.zeros(len(ranks), bool)
    buckets = max(1, -(-len(ranks) // bucket_rows))
    width = (1 << 64) // buckets
    for bucket in range(buckets):
        indices, values = _rows_of(hashes, ranks, bucket, buckets, width)
        order = np.lexsort((indices, ranks[indices], values))
        is_first = np.ones(len(order), bool)
        is_first[1:] = values[order][1:] != values[order][:-1]
        keep[indices[order][is_first]] = True
    return keep


def _rows_of(
    hashes: Path, ranks: np.ndarray, bucket: int, buckets: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices and hashes of the candidates whose hash lies in one range."""
    low = np.uint64(bucket * width)
    high = np.uint64((bucket + 1) * width - 1 if bucket + 1 < buckets else (1 << 64) - 1)
    found_indices, found_values = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for start, values in read_chunks(hashes, np.uint64):
        is_mine = (values >= low) & (values <= high) & (ranks[start : start + len(values)] < NEVER)
        found_indices.append(start + np.flatnonzero(is_mine))
        found_values.append(values[is_mine])
    return np.concatenate(found_indices), np.concatenate(found_values)
