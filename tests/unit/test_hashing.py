"""The counter hash: a function of its words alone, and as good as random where we use it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condenser_jax.data.hashing import hash_u32, hash_u64, integers_below, permute, uniform

WORDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4)


@given(WORDS)
def test_numbers_and_arrays_of_the_same_words_hash_alike(words):
    arrays = [np.array([word]) for word in words]
    mixed = [
        word if i % 2 else array for i, (word, array) in enumerate(zip(words, arrays, strict=True))
    ]
    expected = hash_u64(*words)
    assert expected == hash_u64(*arrays)[0] == hash_u64(*mixed).ravel()[0]


def test_the_type_of_an_integer_does_not_matter():
    words = np.arange(5)
    for dtype in (np.uint8, np.int32, np.uint64):
        np.testing.assert_array_equal(hash_u64(1, words.astype(dtype)), hash_u64(1, words))


def test_a_number_that_is_no_integer_is_refused():
    with pytest.raises(AssertionError, match="must be an integer"):
        hash_u32(np.array([0.5]))


def test_words_broadcast():
    rows, columns = np.arange(3)[:, None], np.arange(4)
    grid = hash_u32(7, rows, columns)
    assert grid.shape == (3, 4) and grid.dtype == np.uint32
    assert grid[2, 3] == hash_u32(7, 2, 3)
    assert hash_u32(7, 2, 3).shape == ()


def test_the_order_and_the_number_of_words_matter():
    hashes = {int(hash_u64(*words)) for words in [(1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (1,), (3,)]}
    assert len(hashes) == 6


def test_words_beyond_32_bits_matter():
    words = np.array([5, 5 + 2**32, 5 + 2**40, 5 + 2**62])
    assert len(set(hash_u32(words).tolist())) == 4


def test_the_hash_never_changes():
    """A change here would change every batch of every run that is resumed."""
    hashes = [int(hash_u32(*words)) for words in [(0,), (1, 2, 3), (-1, 2**40)]]
    assert hashes == [3793791033, 3938253356, 4245173641]


def test_every_bit_of_a_word_flips_half_of_the_bits_of_the_hash():
    words = np.arange(4096, dtype=np.uint64)
    for bit in range(64):
        flipped = hash_u32(3, words) ^ hash_u32(3, words ^ np.uint64(1 << bit))
        flips = np.unpackbits(flipped.view(np.uint8)).reshape(4096, 32).mean(0)
        assert abs(flips - 0.5).max() < 0.05  # 6 standard deviations


def test_uniform_numbers_are_uniform():
    draws = uniform(11, np.arange(100_000))
    assert draws.dtype == np.float32 and draws.min() >= 0 and draws.max() < 1
    counts = np.bincount((draws * 64).astype(int), minlength=64)
    chi_square = ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum()
    assert 63 - 50 < chi_square < 63 + 50  # 63 degrees of freedom, deviation 11


def test_draws_of_neighbouring_words_are_independent():
    draws = uniform(5, np.arange(300)[:, None], np.arange(300)) - 0.5
    unit = 12 * draws.size**0.5  # makes a product's mean a standard normal
    for neighbour in (draws[1:, :-1], draws[:-1, 1:], draws[1:, 1:]):
        assert abs((draws[:-1, :-1] * neighbour).mean()) * unit < 5
    other_seed = uniform(6, np.arange(300)[:, None], np.arange(300)) - 0.5
    assert abs((draws * other_seed).mean()) * unit < 5


@pytest.mark.parametrize("bound", [1, 3, 10, 30_522])
def test_integers_lie_below_their_bound_and_reach_all_of_it(bound):
    draws = integers_below(bound, 1, np.arange(20 * bound))
    assert draws.min() == 0 and draws.max() == bound - 1
    counts = np.bincount(draws, minlength=bound)
    assert abs(counts - 20).max() < 20 * 2  # 9 deviations: Poisson of mean 20


def test_each_integer_may_have_its_own_bound():
    bounds = np.array([1, 2, 1000])
    draws = integers_below(bounds, 4, np.arange(500)[:, None])
    assert (draws < bounds).all() and (draws.max(0) >= [0, 1, 900]).all()


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=60)
def test_permute_is_a_bijection(n, seed):
    np.testing.assert_array_equal(np.sort(permute(np.arange(n), n, seed)), np.arange(n))


@given(
    index=st.lists(st.integers(0, 2**40 - 1), min_size=2, max_size=50, unique=True),
    n=st.integers(2**40, 2**41),
)
@settings(deadline=None)
def test_a_huge_range_is_permuted_by_random_access(index, n):
    image = permute(np.array(index), n, 3)
    assert (0 <= image).all() and (image < n).all() and len(set(image.tolist())) == len(index)
    assert permute(np.array(index[1:2]), n, 3)[0] == image[1]


def test_every_element_may_have_the_seed_of_its_own_epoch():
    index, seeds = np.array([4, 4, 7]), np.array([0, 1, 1], np.uint64)
    image = permute(index, 1000, seeds)
    assert image[1:].tolist() == permute(index[1:], 1000, 1).tolist()
    assert image[0] == permute(index[:1], 1000, 0)[0] != image[1]


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_every_place_gets_every_element_equally_often(n):
    seeds = np.arange(4000)[:, None]
    image = permute(np.arange(n), n, seeds)
    share = (image[:, :, None] == np.arange(n)).mean(0)
    assert abs(share - 1 / n).max() < 5 * (1 / n / 4000) ** 0.5


def test_neighbours_do_not_stay_neighbours():
    image = permute(np.arange(10_000), 10_000, 9)
    steps = np.diff(image)
    assert (abs(steps) == 1).sum() < 20  # 2 are expected of a random order
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.05
