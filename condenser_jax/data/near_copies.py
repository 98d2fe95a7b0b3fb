"""How much of a held-out span stands in the training text too: the share of its 8-grams of tokens.

Libraries copy their documentation from class to class, so whole modules held out still share text
with training. The share is exact but for 64-bit collisions, and streams over train: only held-out
8-grams are held in memory, a bounded number per pass, behind a small table that turns most of
train away.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.data.columns import Column, read_rows

GRAM = 8
GRAMS_PER_PASS = 1 << 22
FILTER_BITS = 24
TRAIN_TOKENS = 1 << 20
OFFSETS_PER_READ = 1 << 16
MULTIPLIERS = np.random.default_rng(8).integers(0, 1 << 63, GRAM, dtype=np.uint64) * 2 + 1


def gram_hashes(ids: np.ndarray) -> np.ndarray:
    """Returns uint64 [T - 7]: one hash for each run of 8 tokens of ids [T]."""
    count = max(0, len(ids) - GRAM + 1)
    tokens = ids.astype(np.uint64) + np.uint64(1)
    total = np.zeros(count, np.uint64)
    for place in range(GRAM):
        total += tokens[place : place + count] * MULTIPLIERS[place]
    total ^= total >> np.uint64(31)
    total *= np.uint64(0x9E3779B97F4A7C15)
    return total ^ (total >> np.uint64(29))


def span_grams(ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hashes of all 8-grams that lie within one span, and the number of them in each
    span.
    """
    counts = np.maximum(lengths - GRAM + 1, 0)
    ends = np.repeat(np.cumsum(lengths), lengths)  # of the span that each token lies in
    hashes = gram_hashes(ids)
    is_within = np.arange(len(hashes)) + GRAM <= ends[: len(hashes)]
    return hashes[is_within], counts


def write_copied(
    split: Path, train: Path, dtype: Any, grams_per_pass: int = GRAMS_PER_PASS
) -> None:
    """Writes `split`/copied.bin: float32 [S], the share of each span's 8-grams that occur in
    `train`.

    Spans of fewer than 8 tokens have none, and the share 0.
    """
    with Column(split / "copied.bin", np.float32) as copied:
        for ids, lengths in _batches(split, dtype, grams_per_pass):
            hashes, counts = span_grams(ids, lengths)
            wanted = np.unique(hashes)
            is_found = _occurring(wanted, train, dtype)[np.searchsorted(wanted, hashes)]
            owners = np.repeat(np.arange(len(counts)), counts)
            found = np.bincount(owners, weights=is_found, minlength=len(counts))
            copied.append(found / np.maximum(counts, 1))


def _batches(split: Path, dtype: Any, tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (ids, lengths) of runs of whole spans, of at most `tokens` tokens or one span."""
    start = 0
    while True:
        offsets = read_rows(split / "offsets.bin", np.int64, start, start + OFFSETS_PER_READ)
        if len(offsets) < 2:
            return
        stop = max(1, int(np.searchsorted(offsets, offsets[0] + tokens, "right")) - 1)
        ids = read_rows(split / "ids.bin", dtype, int(offsets[0]), int(offsets[stop]))
        yield ids, np.diff(offsets[: stop + 1])
        start += stop


def _occurring(wanted: np.ndarray, train: Path, dtype: Any) -> np.ndarray:
    """Returns bool for every sorted hash of `wanted`: whether an 8-gram of train has it."""
    is_found = np.zeros(len(wanted), bool)
    if not len(wanted):
        return is_found
    shift = np.uint64(64 - FILTER_BITS)
    is_possible = np.zeros(1 << FILTER_BITS, bool)
    is_possible[wanted >> shift] = True
    for ids, lengths in _batches(train, dtype, TRAIN_TOKENS):
        hashes, _ = span_grams(ids, lengths)
        hashes = hashes[is_possible[hashes >> shift]]
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        is_found[places[wanted[places] == hashes]] = True
    return is_found
