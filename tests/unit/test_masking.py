"""Whole-word masking against its definition, for both families, on any rows."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condenser_jax.data.masking import (
    NO_WORD,
    TOKENS,
    _choose_words,
    _shuffle_words,
    mask_batch,
    slots_of,
)
from condenser_jax.data.vocabulary import Vocabulary

LENGTH = 40
SIZE = 200


def vocabulary_of(specials: tuple[int, ...]) -> Vocabulary:
    """A vocabulary whose upper half continues words; specials: pad, cls, sep, mask, unk."""
    real = np.setdiff1d(np.arange(SIZE, dtype=np.int32), specials)
    continues = np.zeros(SIZE, bool)
    continues[SIZE // 2 : SIZE - 1] = True
    return Vocabulary(
        **dict(zip(["pad_id", "cls_id", "sep_id", "mask_id", "unk_id"], specials, strict=True)),
        special_ids=np.array(sorted(specials), np.int32),
        continues_word=continues,
        replaceable_ids=real,
    )


BERT = vocabulary_of((0, 2, 3, 4, 1))
ROBERTA = vocabulary_of((1, 0, 2, SIZE - 1, 3))  # the mask id is the last, as RoBERTa's
STARTER, CONTINUATION = 50, 150
FAMILIES = pytest.mark.parametrize("vocabulary", [BERT, ROBERTA], ids=["bert", "roberta"])


def rows_of(bodies, vocabulary, length=LENGTH):
    """[CLS] body [SEP] [PAD]... and its attention mask."""
    ids = np.full((len(bodies), length), vocabulary.pad_id, np.int32)
    for row, body in zip(ids, bodies, strict=True):
        row[: len(body) + 2] = [vocabulary.cls_id, *body, vocabulary.sep_id]
    lengths = np.array([len(body) + 2 for body in bodies])
    return ids, (np.arange(length) < lengths[:, None]).astype(np.int32)


class Masked(NamedTuple):
    """One row before and after masking, its words, and the positions that were masked."""

    before: np.ndarray
    after: np.ndarray
    words: list[list[int]]
    positions: list[int]
    ids: list[int]
    budget: int


def words_of(ids, vocabulary):
    """The positions of each word, by a plain loop."""
    words, open_word = [], False
    for position, token in enumerate(ids):
        if token in vocabulary.special_ids:
            open_word = False
        elif open_word and vocabulary.continues_word[token]:
            words[-1].append(position)
        else:
            words.append([position])
            open_word = True
    return words


def masked_rows(bodies, vocabulary, rate, seed=0) -> list[Masked]:
    ids, attention_mask = rows_of(bodies, vocabulary)
    batch = mask_batch(ids, attention_mask, vocabulary, rate, np.arange(len(bodies)) + seed)
    rows = []
    for number, body in enumerate(bodies):
        used = batch["masked_weights"][number] > 0
        rows.append(
            Masked(
                ids[number],
                batch["input_ids"][number],
                words_of(ids[number], vocabulary),
                batch["masked_positions"][number][used].tolist(),
                batch["masked_ids"][number][used].tolist(),
                max(1, round(rate * len(body))),
            )
        )
    return rows


BODIES = st.lists(
    st.lists(st.sampled_from([1, 3, 10, 50, 51, 120, 150, 151]), max_size=LENGTH - 2),
    min_size=1,
    max_size=6,
)
RATES = st.sampled_from([0.05, 0.15, 0.3, 0.6, 1.0])
SEEDS = st.integers(0, 2**62)
any_rows = given(BODIES, RATES, SEEDS)
quickly = settings(deadline=None, max_examples=60)


@FAMILIES
@any_rows
@quickly
def test_a_word_is_never_cut(vocabulary, bodies, rate, seed):
    for row in masked_rows(bodies, vocabulary, rate, seed):
        for word in row.words:
            assert len(set(word) & set(row.positions)) in (0, len(word))


@FAMILIES
@any_rows
@quickly
def test_special_tokens_are_never_masked(vocabulary, bodies, rate, seed):
    for row in masked_rows(bodies, vocabulary, rate, seed):
        assert not set(row.before[row.positions]) & set(vocabulary.special_ids.tolist())


@FAMILIES
@any_rows
@quickly
def test_the_budget_is_never_exceeded_and_no_word_that_fits_is_left(vocabulary, bodies, rate, seed):
    for row in masked_rows(bodies, vocabulary, rate, seed):
        left = row.budget - len(row.positions)
        assert left >= 0
        for word in row.words:
            assert word[0] in row.positions or len(word) > left


@FAMILIES
@any_rows
@quickly
def test_slots_hold_the_original_ids_and_nothing_else_changes(vocabulary, bodies, rate, seed):
    for row in masked_rows(bodies, vocabulary, rate, seed):
        assert row.positions == sorted(set(row.positions))
        restored = row.after.copy()
        restored[row.positions] = row.ids
        np.testing.assert_array_equal(restored, row.before)


@FAMILIES
@any_rows
@quickly
def test_what_stands_in_the_place_of_a_token_is_mask_or_a_real_id(vocabulary, bodies, rate, seed):
    allowed = {vocabulary.mask_id, *vocabulary.replaceable_ids.tolist()}
    for row in masked_rows(bodies, vocabulary, rate, seed):
        assert set(row.after[row.positions].tolist()) <= allowed


@any_rows
@quickly
def test_slots_are_fixed_and_the_unused_ones_are_zero(bodies, rate, seed):
    ids, attention_mask = rows_of(bodies, BERT)
    batch = mask_batch(ids, attention_mask, BERT, rate, np.full(len(bodies), seed))
    weights = batch["masked_weights"]
    assert weights.shape == (len(bodies), max(1, round(rate * (LENGTH - 2))))
    assert weights.dtype == np.float32 and set(np.unique(weights)) <= {0, 1}
    assert (np.diff(weights, axis=1) <= 0).all()  # used slots come first
    for name in ("masked_positions", "masked_ids"):
        assert batch[name].dtype == np.int32 and not batch[name][weights == 0].any()
    assert batch["input_ids"].dtype == np.int32


@given(st.integers(1, LENGTH - 2), RATES, SEEDS)
@quickly
def test_words_of_one_token_meet_the_budget_exactly(length, rate, seed):
    (row,) = masked_rows([[STARTER] * length], BERT, rate, seed)
    assert len(row.positions) == row.budget


@given(BODIES, RATES, SEEDS)
@quickly
def test_a_rows_mask_does_not_depend_on_the_batch(bodies, rate, seed):
    ids, attention_mask = rows_of(bodies, BERT)
    keys = seed + np.arange(len(bodies))
    together = mask_batch(ids, attention_mask, BERT, rate, keys)
    backwards = mask_batch(ids[::-1], attention_mask[::-1], BERT, rate, keys[::-1])
    for row in range(len(bodies)):
        alone = slice(row, row + 1)
        by_itself = mask_batch(ids[alone], attention_mask[alone], BERT, rate, keys[alone])
        for name, value in together.items():
            np.testing.assert_array_equal(value[row], by_itself[name][0])
            np.testing.assert_array_equal(value[row], backwards[name][len(bodies) - 1 - row])


@given(
    sizes=st.lists(
        st.lists(st.integers(1, 9) | st.just(int(NO_WORD)), min_size=13, max_size=13),
        min_size=1,
        max_size=8,
    ),
    budget=st.integers(1, 20),
    seed=SEEDS,
)
@quickly
def test_passes_over_the_batch_choose_what_a_loop_over_words_does(sizes, budget, seed):
    table = np.array(sizes, np.int32)
    keys = seed + np.arange(len(table))
    expected = []
    for row, columns in enumerate(_shuffle_words(table, keys)):
        left = budget
        for column in columns.tolist():
            if table[row, column] <= left:
                left -= table[row, column]
                expected.append(row * table.shape[1] + column)
    starts = _choose_words(table, np.full(len(table), budget, np.int32), keys)
    assert starts.tolist() == sorted(expected)


def test_a_row_without_a_word_that_fits_masks_nothing():
    (row,) = masked_rows([[STARTER, CONTINUATION] * 3], BERT, 0.15)
    assert row.budget == 1 and row.positions == []
    np.testing.assert_array_equal(row.after, row.before)


@pytest.mark.parametrize("body", [[], [BERT.unk_id] * 5], ids=["empty", "unknown tokens"])
def test_a_row_without_words_masks_nothing(body):
    (row,) = masked_rows([body], BERT, 0.5)
    assert row.positions == []


def test_no_rows_give_no_rows():
    batch = mask_batch(*rows_of([], BERT), BERT, 0.15, np.zeros(0, np.uint64))
    assert batch["masked_ids"].shape == (0, slots_of(0.15, LENGTH))


def test_a_word_too_long_for_the_budget_leaves_it_to_shorter_ones():
    long_word = [STARTER] + [CONTINUATION] * 9
    for row in masked_rows([long_word + [STARTER] * 10] * 50, BERT, 0.15):
        assert len(row.positions) == 3 and min(row.positions) > 10


def test_a_continuation_at_the_start_of_a_window_is_a_word():
    body = [CONTINUATION, CONTINUATION, STARTER]
    masks = {tuple(row.positions) for row in masked_rows([body] * 50, BERT, 0.67)}
    assert masks == {(1, 2), (3,)}


def test_a_special_token_ends_a_word():
    body = [STARTER, BERT.unk_id, CONTINUATION]
    masks = {tuple(row.positions) for row in masked_rows([body] * 50, BERT, 0.1)}
    assert masks == {(1,), (3,)}


@pytest.mark.parametrize("rate, length, slots", [(0.15, 128, 19), (0.15, 512, 76), (0.01, 10, 1)])
def test_slots_are_the_budget_of_a_full_row(rate, length, slots):
    assert slots_of(rate, length) == slots


def test_every_word_is_masked_equally_often():
    rows, words = 60_000, LENGTH - 2
    ids, attention_mask = rows_of([[STARTER] * words] * rows, BERT)
    batch = mask_batch(ids, attention_mask, BERT, 0.15, np.arange(rows))
    counts = np.bincount(batch["masked_positions"][batch["masked_weights"] > 0])[1:]
    assert len(counts) == words and counts.sum() == 6 * rows
    share = 6 / words
    assert abs(counts - share * rows).max() < 4.5 * (rows * share * (1 - share)) ** 0.5


def test_words_are_drawn_independently_of_their_neighbours():
    """Two columns share a 64-bit hash: no pair may be chosen together more often than another."""
    rows = 20_000
    ids, attention_mask = rows_of([[STARTER] * 10] * rows, BERT)
    batch = mask_batch(ids, attention_mask, BERT, 0.2, np.arange(rows))
    first, second = batch["masked_positions"][:, :2].T
    pairs = np.bincount(first * 11 + second, minlength=121)
    pairs = pairs[pairs > 0]
    assert len(pairs) == 45
    assert abs(pairs - rows / 45).max() < 4.5 * (rows / 45) ** 0.5


@FAMILIES
def test_eighty_ten_ten(vocabulary):
    rows = 4000
    ids, attention_mask = rows_of([[STARTER] * 38] * rows, vocabulary)
    batch = mask_batch(ids, attention_mask, vocabulary, 0.5, np.arange(rows))
    total = int(batch["masked_weights"].sum())
    replaced = np.take_along_axis(batch["input_ids"], batch["masked_positions"], 1).ravel()
    assert total == replaced.size == rows * 19

    def within(count, share):
        return abs(count - share * total) < 4.5 * (total * share * (1 - share)) ** 0.5

    drawn = 0.1 / len(vocabulary.replaceable_ids)  # share of each id among random replacements
    counts = np.bincount(replaced, minlength=SIZE)
    assert within(counts[vocabulary.mask_id], 0.8)
    assert within(counts[STARTER], 0.1 + drawn)
    for token in set(vocabulary.replaceable_ids.tolist()) - {STARTER}:
        assert within(counts[token], drawn)


def test_another_key_gives_another_mask():
    ids, attention_mask = rows_of([[STARTER] * 38] * 2, BERT)
    batch = mask_batch(ids, attention_mask, BERT, 0.15, np.array([1, 2]))
    assert batch["masked_positions"][0].tolist() != batch["masked_positions"][1].tolist()


@FAMILIES
@any_rows
@quickly
def test_by_tokens_exactly_the_budget_is_masked_and_no_special_token(
    vocabulary, bodies, rate, seed
):
    ids, attention_mask = rows_of(bodies, vocabulary)
    keys = np.arange(len(bodies)) + seed
    batch = mask_batch(ids, attention_mask, vocabulary, rate, keys, TOKENS)
    for number, body in enumerate(bodies):
        used = batch["masked_weights"][number] > 0
        places = batch["masked_positions"][number][used]
        free = np.flatnonzero(np.isin(ids[number], vocabulary.replaceable_ids))
        assert len(places) == min(max(1, round(rate * len(body))), len(free))
        assert len(set(places)) == len(places) and set(places) <= set(free)
        np.testing.assert_array_equal(batch["masked_ids"][number][used], ids[number][places])
        batch["input_ids"][number][places] = ids[number][places]
    np.testing.assert_array_equal(batch["input_ids"], ids)  # nothing else was changed


def test_by_tokens_every_position_is_as_likely_and_words_are_cut():
    body = [STARTER, CONTINUATION, CONTINUATION, STARTER] * 5
    ids, attention_mask = rows_of([body] * 4000, BERT)
    batch = mask_batch(ids, attention_mask, BERT, 0.2, np.arange(4000), TOKENS)
    counts = np.bincount(batch["masked_positions"][batch["masked_weights"] > 0], minlength=21)[1:]
    assert counts.sum() == 4 * 4000
    assert np.abs(counts / 4000 - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / 4000)
