"""The paired test finds what is there, not what is not, and the same every time."""

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.significance import compare


def named(values):
    return {f"q{i}": float(value) for i, value in enumerate(values)}


def test_few_queries_are_tested_exactly():
    # Of the 8 throws of 3 equal differences, two have a mean as far from 0.
    found = compare(named([1, 1, 1]), named([0, 0, 0]))
    assert found == (3, 1.0, 0.25, True)
    assert str(found) == "difference +1.0000 over 3 queries, p 0.25 (exact)"


def test_equal_systems_do_not_differ():
    values = named(np.linspace(0, 1, 30))
    found = compare(values, values)
    assert found.p == 1 and found.difference == 0 and not found.is_exact


def test_drawn_throws_agree_with_all_throws(monkeypatch):
    from condenser_jax.retrieval import significance

    generator = np.random.default_rng(1)
    first, second = named(generator.normal(0.4, 1, 14)), named(np.zeros(14))
    exact = compare(first, second)
    monkeypatch.setattr(significance, "EXACT_QUERIES", 0)
    drawn = compare(first, second)
    assert exact.is_exact and not drawn.is_exact
    assert drawn.p == pytest.approx(exact.p, abs=0.01) and 0 < exact.p < 1
    assert compare(first, second) == drawn


def test_a_clear_difference_is_found_and_noise_is_not():
    generator = np.random.default_rng(2)
    noise = generator.normal(0, 1, 200)
    zero = named(np.zeros(200))
    assert compare(named(noise + 1), zero).p < 0.001
    assert compare(named(noise - noise.mean() + 0.01), zero).p > 0.5


def test_noise_is_called_significant_as_often_as_p_says():
    generator = np.random.default_rng(4)
    zero = named(np.zeros(12))
    below = [compare(named(generator.normal(0, 1, 12)), zero).p <= 0.1 for _ in range(200)]
    assert 0.04 < np.mean(below) < 0.17


def test_different_queries_are_refused():
    with pytest.raises(
        UserError, match=r"only one of the two systems has: 1 \(they have 2 and 1\)"
    ):
        compare({"a": 1.0, "b": 1.0}, {"a": 1.0})
    with pytest.raises(UserError, match="compares the same queries, at least one"):
        compare({}, {})
