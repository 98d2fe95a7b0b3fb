"""The cross entropy with its own backward pass equals optax's, value and gradients.

Reference: `optax.softmax_cross_entropy_with_integer_labels` on plain logits, differentiated by jax,
float64, tolerance 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from condenser_jax.losses.cross_entropy import tied_cross_entropy, tied_logits
from condenser_jax.losses.masked_lm import masked_lm
from condenser_jax.models.heads import PADDED_LOGIT
from tests.helpers import assert_close, worst_difference

ROWS, SLOTS, WIDTH, REAL, PADDED = 3, 5, 8, 11, 16


def _arguments(dtype="float64"):
    rng = np.random.default_rng(0)
    bias = np.where(np.arange(PADDED) < REAL, rng.standard_normal(PADDED), PADDED_LOGIT)
    states = rng.standard_normal((ROWS, SLOTS, WIDTH))
    table = rng.standard_normal((PADDED, WIDTH))
    return states.astype(dtype), table.astype(dtype), bias.astype(dtype)


LABELS = np.random.default_rng(1).integers(0, REAL, (ROWS, SLOTS))
WEIGHTS = np.random.default_rng(2).integers(0, 2, (ROWS, SLOTS)).astype(np.float64)


def _ours(*arguments):
    return (tied_cross_entropy(*arguments, LABELS)[0] * WEIGHTS).sum()


def _reference(states, table, bias):
    logits = states @ table.T + bias
    return (optax.softmax_cross_entropy_with_integer_labels(logits, LABELS) * WEIGHTS).sum()


def test_value_and_gradients_equal_those_of_optax():
    with jax.enable_x64(True):
        grad = [jax.value_and_grad(f, argnums=(0, 1, 2)) for f in (_ours, _reference)]
        ours, reference = (f(*_arguments()) for f in grad)
        assert_close(ours, reference, 1e-12)
        states, table, bias = _arguments()
        other = grad[0](states, table, bias + np.arange(PADDED))
        assert worst_difference(other, reference)[0] > 1e-2


def test_bfloat16_states_give_float32_losses():
    states, table, bias = _arguments("float32")
    nll, _ = tied_cross_entropy(jnp.asarray(states, jnp.bfloat16), table, bias, LABELS)
    exact, _ = tied_cross_entropy(states, table, bias, LABELS)
    assert nll.dtype == jnp.float32
    assert 1e-6 < np.abs(nll - exact).max() < 0.1


def test_the_padded_vocabulary_never_counts():
    states, table, bias = _arguments("float32")
    tall = table.copy()
    tall[REAL:] *= 1e3
    nll = [tied_cross_entropy(states, rows, bias, LABELS)[0] for rows in (table, tall)]
    np.testing.assert_array_equal(*nll)
    gradient = jax.grad(lambda t: tied_cross_entropy(states, t, bias, LABELS)[0].sum())(tall)
    assert not np.asarray(gradient)[REAL:].any()
    assert np.asarray(gradient)[:REAL].any()


def test_correct_is_where_the_label_has_the_largest_logit():
    states, table, bias = _arguments("float32")
    best = np.asarray(tied_logits(states, table, bias)).argmax(-1)
    assert (tied_cross_entropy(states, table, bias, best)[1] == 1).all()
    assert (tied_cross_entropy(states, table, bias, (best + 1) % REAL)[1] == 0).all()


def test_large_logits_do_not_overflow():
    states, table, bias = _arguments("float32")
    nll, _ = tied_cross_entropy(states * 1e4, table, bias, LABELS)
    assert np.isfinite(nll).all()


def test_masked_lm_is_a_weighted_sum_over_the_global_count():
    nll, correct = tied_cross_entropy(*_arguments("float32"), LABELS)
    value, metrics = masked_lm(nll, correct, WEIGHTS, 2.0 * WEIGHTS.sum(), "late_")
    mean = (np.asarray(nll) * WEIGHTS).sum() / WEIGHTS.sum()
    np.testing.assert_allclose(value, mean / 2, rtol=1e-6)
    total, count = metrics["late_loss"]
    np.testing.assert_allclose(total / count, mean, rtol=1e-6)
