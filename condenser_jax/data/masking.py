"""Whole-word masking of a batch, vectorised: no Python loop over rows.

Each row has a budget of max(1, round(mask_rate * body tokens)) tokens. Its words are taken in
random order; one that does not fit the rest of the budget is skipped, none is ever cut. Of the
tokens taken 80 % become [MASK], 10 % a uniform real non-special id, 10 % stay. The reference
defines the same per record, in a Python loop (Gao and Callan 2021, section 3; BERT's recipe).
Every draw hashes (key of the row, position), so a row's mask depends on nothing else in the batch.
"""

import numpy as np

from condenser_jax.data.hashing import Word, hash_u64, integers_below, uniform
from condenser_jax.data.vocabulary import CONTINUES_WORD, SPECIAL, Vocabulary

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # the rest stays as it is
ORDER, ACTION, REPLACEMENT = 1, 2, 3  # what a hash is drawn for
NO_WORD = np.uint64(2**64 - 1)
FIELD = np.uint64(16)  # bits of a word's size and of its position in a packed word


def slots_of(mask_rate: float, max_length: int) -> int:
    """M: the number of masked slots of a row of `max_length` positions, the budget of a full one."""
    return max(1, round(mask_rate * (max_length - 2)))


def mask_batch(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    vocabulary: Vocabulary,
    mask_rate: float,
    keys: Word,
) -> dict[str, np.ndarray]:
    """Masks rows [CLS] body [SEP] [PAD]...; see the module for the definition.

    input_ids int32 [B, L], attention_mask int [B, L] (1 = attend), keys: integers [B], one per row
    (a hash of seed, epoch and span), the only source of randomness.
    Returns input_ids int32 [B, L] and masked_positions int32, masked_ids int32, masked_weights
    float32 [B, M], in the order of positions; unused slots are all zero.
    """
    B, L = input_ids.shape
    body_tokens = np.maximum(attention_mask.sum(1) - 2, 0)
    budget = np.maximum(1, np.rint(mask_rate * body_tokens)).astype(np.int64)
    sizes = _word_sizes(vocabulary.kinds[input_ids])
    starts = _choose_words(sizes, budget, np.asarray(keys))
    positions = _tokens_of(starts, sizes)  # numbers into the flattened batch, ascending
    row, column = np.divmod(positions, L)
    original = input_ids.ravel()[positions]
    masked = input_ids.copy()
    masked.ravel()[positions] = _replace(original, vocabulary, np.asarray(keys)[row], column)
    first = np.searchsorted(row, np.arange(B))  # number of the first masked token of each row
    slots = np.zeros((3, B, slots_of(mask_rate, L)), np.int32)
    slots[:, row, np.arange(len(row)) - first[row]] = column, original, np.ones_like(column)
    return {
        "input_ids": masked,
        "masked_positions": slots[0],
        "masked_ids": slots[1],
        "masked_weights": slots[2].astype(np.float32),
    }


def _word_sizes(kinds: np.ndarray) -> np.ndarray:
    """[B, L] kinds of tokens -> [B, L] tokens of the word that starts there, 0 where none does.

    A special token ends a word: what follows it starts one, marked as a continuation or not, and
    so does the first token of a window that begins within a word.
    """
    assert kinds.shape[1] < 1 << int(FIELD)
    before = np.zeros_like(kinds)
    before[:, 1:] = kinds[:, :-1]
    boundary = (kinds != CONTINUES_WORD) | (before == SPECIAL)
    boundary[:, 0] = True  # words do not run over the end of a row
    ends = np.flatnonzero(boundary)
    sizes = np.zeros(kinds.size, np.uint64)
    sizes[ends] = np.diff(ends, append=kinds.size)
    sizes = sizes.reshape(kinds.shape)
    sizes[kinds == SPECIAL] = 0
    return sizes


def _choose_words(sizes: np.ndarray, budget: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Fills each row's budget with words in random order, skipping those that do not fit.

    sizes uint64 [B, L], budget int [B], keys [B] -> the chosen words' starts, ascending numbers
    into the flattened batch. The loop runs over the rank of a word in its row, all rows at once.
    """
    B, L = sizes.shape
    column = np.arange(L, dtype=np.uint64)
    order = hash_u64(ORDER, keys[:, None], column)
    packed = (order >> (FIELD + FIELD) << FIELD | sizes) << FIELD | column
    packed[sizes == 0] = NO_WORD
    packed.sort(axis=1)  # by 32 random bits
    packed = np.ascontiguousarray(packed.T)  # rank, row
    field = np.uint64((1 << int(FIELD)) - 1)
    row_start = np.arange(B) * L
    left = budget.copy()
    chosen = np.zeros(B * L, bool)
    for words in packed:
        size = (words >> FIELD & field).astype(np.int64)
        fits = size <= left
        left -= size * fits
        chosen[(row_start + (words & field).astype(np.int64))[fits]] = True
        if not left.any():
            break
    return np.flatnonzero(chosen)


def _tokens_of(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the positions of all tokens of the words that start at `starts`, ascending."""
    counts = sizes.ravel()[starts].astype(np.int64)
    first = np.cumsum(counts) - counts  # number of each word's first token among all of them
    return np.repeat(starts - first, counts) + np.arange(counts.sum())


def _replace(
    original: np.ndarray, vocabulary: Vocabulary, keys: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Returns what stands in the place of masked tokens: [MASK], a random id, or themselves."""
    draw = uniform(ACTION, keys, column)
    choice = integers_below(len(vocabulary.replaceable_ids), REPLACEMENT, keys, column)
    random_ids = vocabulary.replaceable_ids[choice]
    unmasked = np.where(draw < MASK_SHARE + RANDOM_SHARE, random_ids, original)
    return np.where(draw < MASK_SHARE, vocabulary.mask_id, unmasked).astype(np.int32)
