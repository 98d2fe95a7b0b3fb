"""Randomness as a function of named things: a vectorised counter hash.

Windows, masks, span choice and shuffling are drawn from hashes of (seed, epoch, index, position),
so a draw does not depend on the batch, the host or the order in which it is asked for, and
nothing below `prepare` keeps a generator's state. Words are absorbed one after the other by the
64-bit finaliser of SplitMix64 (Steele et al. 2014; constants of Stafford's variant 13).
"""

import math

import numpy as np

MASK_64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: keeps a run of zero words moving
STAFFORD = (30, 0xBF58476D1CE4E5B9, 27, 0x94D049BB133111EB, 31)
GOLDEN_U64, STAFFORD_U64 = np.uint64(GOLDEN), tuple(np.uint64(c) for c in STAFFORD)
FEISTEL_ROUNDS = 6

Word = int | np.integer | np.ndarray


def hash_u64(*words: Word) -> np.ndarray:
    """Returns uint64 hashes of the broadcast words: equal words of any integer type hash equally.

    Put Python numbers first and the longest axis last: a word costs the shape reached by then.
    """
    known = 0  # the state as a Python number, as far as the words are
    while words and isinstance(words[0], int):
        known, words = _mix_int(known, words[0]), words[1:]
    state = np.array([known], np.uint64)
    for word in words:
        state = _mix(state, _as_word(word))
    return state.reshape(np.broadcast_shapes(*(np.shape(word) for word in words)))


def _as_word(word: Word) -> np.ndarray:
    """Returns a word as uint64 of at least one axis; negative numbers wrap around."""
    if isinstance(word, int):
        return np.array([word & MASK_64], np.uint64)
    array = np.atleast_1d(word)
    assert array.dtype.kind in "iu", f"a hash word must be an integer, not {array.dtype}"
    return array.astype(np.uint64, copy=False)


def _mix(state: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Absorbs a word into the state: for either of them fixed, a bijection of the other."""
    shift_1, factor_1, shift_2, factor_2, shift_3 = STAFFORD_U64
    state = (state + GOLDEN_U64) ^ word
    state ^= state >> shift_1
    state *= factor_1
    state ^= state >> shift_2
    state *= factor_2
    state ^= state >> shift_3
    return state


def _mix_int(state: int, word: int) -> int:
    """The same in Python's integers: 20 times faster than arrays of one element."""
    shift_1, factor_1, shift_2, factor_2, shift_3 = STAFFORD
    state = ((state + GOLDEN) ^ word) & MASK_64
    state = (state ^ state >> shift_1) * factor_1 & MASK_64
    state = (state ^ state >> shift_2) * factor_2 & MASK_64
    return state ^ state >> shift_3


def hash_u32(*words: Word) -> np.ndarray:
    """Returns uint32 hashes of the broadcast words (the upper half of `hash_u64`)."""
    return (hash_u64(*words) >> np.uint64(32)).astype(np.uint32)


def uniform(*words: Word) -> np.ndarray:
    """Returns float32 numbers of [0, 1), multiples of 2**-24, of the words' broadcast shape."""
    return (hash_u32(*words) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def integers_below(bound: Word, *words: Word) -> np.ndarray:
    """Returns int64 numbers uniform in [0, bound), one per broadcast word; bound <= 2**32.

    The bias of any value is below bound / 2**32.
    """
    draws = hash_u32(*words).astype(np.uint64)
    return ((draws * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int64)


def two_below(bound: Word, domain: int, *words: Word) -> tuple[np.ndarray, np.ndarray]:
    """Returns two distinct numbers of [0, bound) per broadcast word, every ordered pair equally
    likely; 2 <= bound. Draws under the words `domain` and `domain` + 1.
    """
    first = integers_below(bound, domain, *words)
    further = 1 + integers_below(np.asarray(bound) - 1, domain + 1, *words)
    return first, (first + further) % bound


def permute(index: np.ndarray, n: int, seed: Word) -> np.ndarray:
    """Returns where the numbers `index` of range(n) go in the shuffle of range(n) named `seed`.

    A shuffle with random access: for one seed the map is a bijection of range(n), and any element
    costs the same, whatever n (up to 2**62). `seed` may be an array that broadcasts with `index`.
    A Feistel network over Z_a x Z_b with a * b just above n; the rare images outside of range(n)
    walk on along their cycle (generalised Feistel and cycle walking of Black and Rogaway, 2002).
    """
    assert n > 0, "nothing to shuffle"
    shape = np.broadcast_shapes(np.shape(index), np.shape(seed))
    image = np.broadcast_to(np.asarray(index, np.int64), shape).reshape(-1).copy()
    seeds = np.broadcast_to(hash_u64(seed), shape).reshape(-1)  # far apart: halves are added
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    walking = np.arange(image.size)
    while walking.size:
        image[walking] = _feistel(image[walking], seeds[walking], columns, rows)
        walking = walking[image[walking] >= n]
    return image.reshape(shape)


def _feistel(index: np.ndarray, seeds: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """One pass of the network: each half in turn is rotated by a hash of the other."""
    row, column = np.divmod(index, columns)
    for turn in range(0, FEISTEL_ROUNDS, 2):
        row = (row + integers_below(rows, turn, seeds + _as_word(column))) % rows
        column = (column + integers_below(columns, turn + 1, seeds + _as_word(row))) % columns
    return row * columns + column
