"""Dropout: the stated rate, independent bits, and masks that know only where a number stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.models.dropout import (
    Dropout,
    drop_attention,
    drop_hidden,
    dropout_of_step,
    key_of_run,
)

RATE = 0.1
ROWS, LENGTH, WIDTH, HEADS = 4, 32, 64, 4


def _randomness(step: int = 0, seed: int = 0, rows=range(ROWS)) -> Dropout:
    return dropout_of_step(key_of_run(seed), jnp.int32(step), jnp.asarray(rows, jnp.int32))


def _hidden(dropout, site=5, positions=None, length=LENGTH, rate=RATE):
    x = jnp.ones((len(dropout.rows), length, WIDTH))
    return np.asarray(drop_hidden(x, rate, dropout, site, positions))


def _attention(dropout, site=5, positions=None, queries=LENGTH, rate=RATE):
    x = jnp.ones((len(dropout.rows), HEADS, queries, LENGTH))
    return np.asarray(drop_attention(x, rate, dropout, site, positions))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("drop", [_hidden, _attention])
def test_the_stated_share_is_dropped_and_the_rest_scaled(drop, rate):
    dropped = np.concatenate([drop(_randomness(step), rate=rate).ravel() for step in range(8)])
    deviation = np.sqrt(rate * (1 - rate) / dropped.size)
    assert abs((dropped == 0).mean() - rate) < 4.5 * deviation
    np.testing.assert_allclose(dropped[dropped > 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("drop", [_hidden, _attention])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_neighbours_are_independent_along_every_axis(drop, axis):
    zeros = drop(_randomness(), rate=0.5) == 0
    left, right = np.delete(zeros, -1, axis), np.delete(zeros, 0, axis)
    _check_independent(left, right)


@pytest.mark.parametrize("drop", [_hidden, _attention])
@pytest.mark.parametrize(
    ("dropout", "site"), [((1, 0), 5), ((0, 1), 5), ((0, 0), 6), ((0, 0), 1029)]
)
def test_other_steps_seeds_and_sites_are_independent(drop, dropout, site):
    first, second = _randomness(), _randomness(*dropout)
    _check_independent(drop(first, rate=0.5) == 0, drop(second, site=site, rate=0.5) == 0)


def test_a_site_of_one_row_is_no_site_of_another():
    """Sites and rows go into one number; a sum without a multiplier would repeat masks."""
    masks = [
        (_hidden(_randomness(rows=[row]), site, rate=0.5) == 0).tobytes()
        for row in range(8)
        for site in range(8)
    ]
    assert len(set(masks)) == len(masks)


@pytest.mark.parametrize("drop", [_hidden, _attention])
def test_gathered_rows_see_the_masks_of_their_positions(drop):
    dropout, positions = _randomness(), jnp.asarray([[0, 3, 9], [0, 0, 31], [7, 1, 2], [30, 8, 5]])
    full = drop(dropout)
    sizes = {"queries": 3} if drop is _attention else {"length": 3}
    gathered = drop(dropout, positions=positions, **sizes)
    for row, places in enumerate(np.asarray(positions)):
        expected = full[row][:, places] if drop is _attention else full[row][places]
        np.testing.assert_array_equal(gathered[row], expected)
    moved = drop(dropout, positions=positions + 1, **sizes)
    assert (moved != gathered).any()


@pytest.mark.parametrize("drop", [_hidden, _attention])
def test_parts_of_a_batch_see_the_masks_of_the_whole(drop):
    whole = drop(_randomness())
    np.testing.assert_array_equal(drop(_randomness(rows=[2, 3])), whole[2:])
    assert (drop(_randomness(rows=[0, 1])) != whole[2:]).any()


def test_without_randomness_or_rate_nothing_is_dropped():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    assert drop_hidden(x, RATE, None, 0) is x
    assert drop_hidden(x, 0.0, _randomness(rows=[0, 1]), 0) is x


def test_compiled_masks_are_the_same():
    dropout = _randomness()
    compiled = jax.jit(lambda x, d: drop_hidden(x, RATE, d, 5))(jnp.ones((ROWS, 8, WIDTH)), dropout)
    np.testing.assert_array_equal(compiled, _hidden(dropout, length=8))


def _check_independent(first: np.ndarray, second: np.ndarray) -> None:
    """Two fair masks agree on half of their places, within 4.5 standard deviations."""
    agreement = (first == second).mean()
    assert abs(agreement - 0.5) < 4.5 * 0.5 / np.sqrt(first.size)
