"""Texts of many lengths in batches of few shapes."""

import numpy as np
import pytest

from condenser_jax.data.buckets import SPECIALS, TokenIds, bucket_lengths, in_buckets

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(SPECIALS, 257, 3000)
BATCHES = list(in_buckets(LENGTHS, 256, 4096, multiple=8))


def test_every_text_is_in_one_batch_that_is_long_enough():
    assert sorted(np.concatenate([batch.texts for batch in BATCHES])) == list(range(len(LENGTHS)))
    for texts, (rows, length) in BATCHES:
        assert len(texts) <= rows and LENGTHS[texts].max() <= length


def test_there_are_few_shapes_of_equal_size_and_little_padding():
    shapes = {batch.shape for batch in BATCHES}
    assert len(shapes) == len({length for _, length in shapes}) <= len(bucket_lengths(256)) <= 16
    assert all(rows % 8 == 0 and rows * length <= 4096 for rows, length in shapes)
    assert sum(len(batch.texts) < batch.shape[0] for batch in BATCHES) <= 1
    padded = sum(rows * length for _, (rows, length) in BATCHES)
    assert LENGTHS.sum() < padded < 1.15 * LENGTHS.sum()
    assert padded < 0.6 * 256 * len(LENGTHS)  # than all at the greatest length


def test_a_few_texts_are_not_padded_to_a_full_batch():
    (batch,) = in_buckets(np.array([5, 9, 7]), 256, 4096)
    assert batch.shape == (4, 16) and list(batch.texts) == [1, 2, 0]
    (batch,) = in_buckets(np.array([5, 9, 7]), 256, 4096, multiple=8)
    assert batch.shape == (8, 16)


@pytest.mark.parametrize("longest", [3, 16, 17, 100, 512])
def test_the_longest_text_has_a_bucket(longest):
    lengths = bucket_lengths(longest)
    assert lengths[-1] == longest and (np.diff(lengths) > 0).all()
    assert [batch.shape for batch in in_buckets(np.array([longest]), longest, 1)] == [(1, longest)]


def test_rows_are_cls_text_sep_padding_and_a_lone_cls_where_there_is_no_text():
    tokens = TokenIds([[7, 8, 9], [], [5, 6]], room=2)
    ids, used = tokens.rows(np.array([2, 0, 1]), (4, 6), cls_id=2, sep_id=3, pad_id=0)
    assert ids.tolist() == [
        [2, 5, 6, 3, 0, 0],
        [2, 7, 8, 3, 0, 0],
        [2, 3, 0, 0, 0, 0],
        [2, 0, 0, 0, 0, 0],
    ]
    assert used.tolist() == [4, 4, 2, 1]
