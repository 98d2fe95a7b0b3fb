"""Batches of queries with one positive and hard negatives, drawn anew at every visit."""

import numpy as np
import pytest

from condenser_jax.data import ranking_batches
from condenser_jax.data.ranking_batches import (
    ABSENT,
    Lists,
    RankingBatches,
    TrainingSet,
    first_alike,
)
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError

CLS, SEP, PAD, FIRST = 1, 2, 0, 10
PASSAGES = 30


class Texts:
    """Text number n is the token FIRST + n, repeated n % 4 + 1 times; from `kinds` on the texts
    come again.
    """

    def __init__(self, total: int, kinds: int = 1000) -> None:
        lengths = np.arange(total) % kinds % 4 + 1
        self.offsets, self.kinds = np.concatenate([[0], np.cumsum(lengths)]), kinds

    def gather(self, indices, starts, length):
        indices = indices % self.kinds
        sizes = np.minimum(indices % 4 + 1, length)
        is_real = np.arange(length) < sizes[:, None]
        return np.where(is_real, FIRST + indices[:, None], PAD).astype(np.int32), sizes


def _lists(*lists: list[int], scores: bool = False) -> Lists:
    numbers = np.array([n for one in lists for n in one], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    return Lists(offsets, numbers, numbers / 10 if scores else None)


POSITIVES = _lists([0], [1, 2, 3], [4], [5, 6], [7])
NEGATIVES = _lists([20, 21, 22, 23], [24, 25], [], [26], [10, 11, 12, 13, 14, 15])


def _batches(positives=POSITIVES, negatives=NEGATIVES, group=4, batch_size=5, seed=0, kinds=1000):
    none = np.zeros(0, np.int32)
    vocabulary = Vocabulary(PAD, CLS, SEP, 3, None, none, np.zeros(50, bool), none)
    data = TrainingSet(Texts(5), Texts(PASSAGES, kinds), positives, negatives)
    return RankingBatches(data, vocabulary, batch_size, group, 5, 4, seed)


def _by_query(batch) -> dict[int, np.ndarray]:
    """{query: its passages}; the query is its own first token."""
    return dict(zip(batch["query_input_ids"][:, 1] - FIRST, batch["passages"], strict=True))


def test_every_query_brings_a_positive_and_distinct_negatives_of_its_own():
    for step in range(20):
        for query, passages in _by_query(_batches().batch(step)).items():
            own = [
                set(one.padded(np.array([query]))[0]) - {ABSENT} for one in (POSITIVES, NEGATIVES)
            ]
            assert passages[0] in own[0]
            drawn = set(passages[1:])
            if own[1]:
                assert drawn <= own[1] and len(drawn) == min(3, len(own[1]))


def test_positives_and_negatives_are_drawn_anew_at_every_visit():
    batches, seen = _batches(), {query: set() for query in range(5)}
    for step in range(30):
        for query, passages in _by_query(batches.batch(step)).items():
            seen[query].add(tuple(passages))
    assert {first for first, *_ in seen[1]} == {1, 2, 3}
    assert {n for _, *rest in seen[4] for n in rest} == {10, 11, 12, 13, 14, 15}
    assert len({tuple(rest) for _, *rest in seen[2]}) > 20  # none of its own: at random


def test_a_batch_depends_on_seed_and_step_alone_and_rows_are_rows_of_it():
    whole, again = _batches().batch(7), _batches().batch(7)
    part = _batches().batch(7, np.array([3, 1]))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_array_equal(part[name], values[[3, 1]])
    assert not np.array_equal(whole["passages"], _batches(seed=1).batch(7)["passages"])


def test_texts_stand_between_cls_and_sep_and_lose_their_ends():
    batch = _batches().batch(0)
    for number, ids, mask in zip(
        batch["passages"].ravel(),
        batch["passage_input_ids"].reshape(-1, 4),
        batch["passage_attention_mask"].reshape(-1, 4),
        strict=True,
    ):
        body = min(number % 4 + 1, 2)
        assert ids.tolist() == ([CLS] + [FIRST + number] * body + [SEP] + [PAD] * 4)[:4]
        assert mask.sum() == body + 2


def test_all_known_positives_come_along():
    batch = _batches().batch(0)
    known = dict(zip(batch["query_input_ids"][:, 1] - FIRST, batch["positives"], strict=True))
    assert known[1].tolist() == [1, 2, 3] and known[0].tolist() == [0, ABSENT, ABSENT]


def test_passages_that_read_alike_have_one_number_whatever_their_ids():
    """So a copy of a positive is no negative: of 30 texts the last 10 are the first 10 again."""
    whole, copied = _batches().batch(0), _batches(kinds=20).batch(0)
    assert (whole["passages"] >= 20).any() and (copied["passages"] < 20).all()
    np.testing.assert_array_equal(copied["passages"], whole["passages"] % 20)
    np.testing.assert_array_equal(copied["positives"], whole["positives"])
    later = _lists([20], [1, 2, 23], [4], [5, 6], [7])
    known = _batches(later, kinds=20).batch(0)["positives"]
    assert {tuple(row) for row in known.tolist()} >= {(0, ABSENT, ABSENT), (1, 2, 3)}


def test_passages_are_alike_as_far_as_they_are_read(monkeypatch):
    monkeypatch.setattr(ranking_batches, "AT_ONCE", 4)
    texts = Texts(9, kinds=5)
    assert first_alike(texts, 3).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    texts.gather = lambda which, starts, length: (np.minimum(which, 6)[:, None], which * 0 + 1)
    assert first_alike(texts, 1).tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_scores_follow_their_passages():
    scored = [_lists([0], [1, 2], [4], [5], [7], scores=True)]
    scored.append(
        _lists([20, 21, 22], [24, 25, 26], [8, 9, 10], [11, 12, 13], [14, 15], scores=True)
    )
    batch = _batches(*scored).batch(3)
    np.testing.assert_allclose(batch["teacher_scores"], batch["passages"] / 10, rtol=1e-6)
    assert "teacher_scores" not in _batches().batch(3)


def test_scores_of_positives_alone_are_no_one_s_to_compare():
    scored = (_lists(*numbers, scores=True) for numbers in ([[0], [1], [4], [5], [7]], [[]] * 5))
    batch = _batches(*scored, group=2).batch(3)
    assert batch["passages"].shape == (5, 2) and "teacher_scores" not in batch


def test_a_query_without_a_positive_is_refused():
    positives = _lists([0], [], [4], [], [7])
    with pytest.raises(UserError, match="2 of 5 training queries have no positive; expected at"):
        _batches(positives)
