"""Masking of a batch by whole words or by tokens, vectorised: no Python loop over rows.

Each row has a budget of max(1, round(mask_rate * body tokens)) tokens. Its words are taken in
random order; one that does not fit the rest of the budget is skipped, none is ever cut. Of the
tokens taken 80 % become [MASK], 10 % a uniform real non-special id, 10 % stay. (Devlin et
al. 2019, section 3.1, with whole words; the reference of Condenser does this per record.)
By tokens, every token that is not special is a word of its own: exactly the budget is taken,
uniformly without replacement, as Tutor-KD wants it.
Every draw hashes (key of the row, position), so a row's mask depends on nothing else in the batch.
"""

import numpy as np

from condenser_jax.data.hashing import Word, hash_u64, integers_below, uniform
from condenser_jax.data.vocabulary import CONTINUES_WORD, SPECIAL, Vocabulary

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # the rest stays as it is
ORDER, ACTION, REPLACEMENT = 1, 2, 3  # what a hash is drawn for
NO_WORD = np.iinfo(np.int32).max  # a size that fits no budget
WORDS, TOKENS = "words", "tokens"  # what is masked as a whole


def slots_of(mask_rate: float, max_length: int) -> int:
    """M: the masked slots of a row of `max_length` positions, which is the budget of a full one."""
    return max(1, round(mask_rate * (max_length - 2)))


def mask_batch(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    vocabulary: Vocabulary,
    mask_rate: float,
    keys: Word,
    masking: str = WORDS,
) -> dict[str, np.ndarray]:
    """Masks rows [CLS] body [SEP] [PAD]... by `masking`, one of MASKINGS; see the module.

    input_ids int32 [B, L], attention_mask int [B, L] (1 = attend), keys: integers [B], one per row
    (a hash of seed, epoch and span), the only source of randomness.
    Returns input_ids int32 [B, L] and masked_positions int32, masked_ids int32, masked_weights
    float32 [B, M], in the order of positions; unused slots are all zero.
    """
    B, L = input_ids.shape
    keys = np.asarray(keys)
    body_tokens = attention_mask.sum(1) - 2
    budget = np.maximum(1, np.rint(mask_rate * body_tokens)).astype(np.int32)
    sizes = MASKINGS[masking](vocabulary.kinds.take(input_ids))
    starts = _choose_words(sizes, budget, keys)
    positions = _tokens_of(starts, sizes.ravel()[starts])  # in the flattened batch, ascending
    row, column = np.divmod(positions, L)
    original = input_ids.ravel()[positions]
    masked = input_ids.copy()
    masked.ravel()[positions] = _replace(original, vocabulary, keys[row], column)
    first = np.searchsorted(row, np.arange(B))  # number of the first masked token of each row
    slot = np.arange(len(row)) - first[row]
    slots = np.zeros((3, B, slots_of(mask_rate, L)), np.int32)
    slots[:, row, slot] = column, original, np.ones_like(column)
    return {
        "input_ids": masked,
        "masked_positions": slots[0],
        "masked_ids": slots[1],
        "masked_weights": slots[2].astype(np.float32),
    }


def _word_sizes(kinds: np.ndarray) -> np.ndarray:
    """[B, L] kinds of tokens -> int32 [B, L] tokens of the word that starts there, else NO_WORD.

    A special token ends a word: what follows it starts one, marked as a continuation or not, and
    so does the first token of a window that begins within a word.
    """
    special = kinds == SPECIAL
    boundary = kinds != CONTINUES_WORD
    boundary[:, 1:] |= special[:, :-1]
    ends = np.flatnonzero(boundary)  # every row begins with one, its [CLS]
    sizes = np.full(kinds.size, NO_WORD, np.int32)
    sizes[ends] = np.diff(ends, append=kinds.size)
    return np.where(special, np.int32(NO_WORD), sizes.reshape(kinds.shape))


def _token_sizes(kinds: np.ndarray) -> np.ndarray:
    """[B, L] kinds of tokens -> int32 [B, L]: 1, but NO_WORD for a special token."""
    return np.where(kinds == SPECIAL, np.int32(NO_WORD), np.int32(1))


MASKINGS = {WORDS: _word_sizes, TOKENS: _token_sizes}


def _shuffle_words(sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """int32 [B, L] sizes, keys [B] -> uint32 [B, L]: each row's columns, its words first, shuffled.

    Sorts 31 - log2(L) random bits (two columns share a hash) with the column below them.
    """
    L = sizes.shape[1]
    pairs = hash_u64(ORDER, keys[:, None], np.arange((L + 1) // 2))
    order = pairs.view(np.uint32)[:, :L] >> np.uint32(1)
    order |= (sizes == NO_WORD).astype(np.uint32) << np.uint32(31)
    low = np.uint32((1 << (L - 1).bit_length()) - 1)
    order = order & ~low | np.arange(L, dtype=np.uint32)
    order.sort(axis=1)
    order &= low
    return order


def _choose_words(sizes: np.ndarray, budget: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Fills each row's budget with words in random order, skipping those that do not fit.

    int32 [B, L] sizes, int32 [B] budget, keys [B] -> the starts of the chosen words, ascending
    in the flattened batch. A pass takes, of the words that would still fit alone, all up to the
    first that does not fit together with those before it; in the next pass that one fits no more.
    Three passes are usual, for ever fewer rows.
    """
    columns = _shuffle_words(sizes, keys)
    chosen = np.zeros(sizes.shape, bool)
    left = budget.copy()
    rows, width = (
        np.arange(len(sizes)),
        int(budget.max(initial=0)),
    )  # the first pass needs no more words
    while rows.size:
        at = rows[:, None], columns[rows, :width]
        size, room = sizes[at], left[rows, None]
        takes = (size <= room) & ~chosen[at]
        takes &= np.cumsum(size * takes, axis=1, dtype=np.int32) <= room
        chosen[at] |= takes
        left[rows] -= (size * takes).sum(1, dtype=np.int32)
        rows = rows[(left[rows] > 0) & (takes.any(1) | (width < sizes.shape[1]))]
        width = sizes.shape[1]
    return np.flatnonzero(chosen)


def _tokens_of(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the positions of all tokens of the words with these starts and sizes, ascending."""
    first = np.cumsum(sizes) - sizes  # number of each word's first token among all of them
    return np.repeat(starts - first, sizes) + np.arange(sizes.sum())


def _replace(
    original: np.ndarray, vocabulary: Vocabulary, keys: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Returns what stands in the place of masked tokens: [MASK], a random id, or themselves."""
    draw = uniform(ACTION, keys, column)
    replaced = np.where(draw < MASK_SHARE, np.int32(vocabulary.mask_id), original)
    (at_random,) = np.nonzero((draw >= MASK_SHARE) & (draw < MASK_SHARE + RANDOM_SHARE))
    choice = integers_below(
        len(vocabulary.replaceable_ids), REPLACEMENT, keys[at_random], column[at_random]
    )
    replaced[at_random] = vocabulary.replaceable_ids[choice]
    return replaced
