"""The parallel map keeps the order, does not run ahead, and survives the death of a worker."""

import os

import pytest

from condenser_jax.data.parallel import ITEMS_PER_WORKER, ordered_map
from condenser_jax.errors import UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(ordered_map(abs, range(-50, 0), workers)) == list(range(50, 0, -1))


def test_the_input_is_not_read_ahead():
    read = []
    items = (read.append(i) or i for i in range(1000))
    results = ordered_map(abs, items, workers=2)
    for _ in range(5):
        next(results)
    results.close()
    assert len(read) <= 5 + 2 * ITEMS_PER_WORKER


def test_a_worker_that_dies_is_one_clear_line():
    with pytest.raises(UserError, match="one of 2 processes that read text died, .*fewer workers"):
        list(ordered_map(os._exit, [1], workers=2))


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(ordered_map((1).__truediv__, [1, 0], workers=2))
