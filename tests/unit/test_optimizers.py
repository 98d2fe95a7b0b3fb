"""Learning rates by update, decay by role, clipping by player."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training.optimizers import (
    OptimizerConfig,
    build_optimizers,
    clip_by_player,
    decay_mask,
    schedule_of_rate,
)
from tests.toy import toy_objective

UPDATES = 100


def rates(**changes):
    config = OptimizerConfig(warmup=0.1, **changes)
    schedule = schedule_of_rate(config, UPDATES)
    return np.array([float(schedule(t)) for t in range(UPDATES)])


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant", "trapezoid"])
def test_the_rate_rises_linearly_and_no_update_is_wasted_at_zero(decay):
    np.testing.assert_allclose(rates(decay=decay)[:10], np.arange(1, 11) / 10, rtol=1e-6)


def test_each_decay_has_its_shape():
    assert rates(decay="constant")[10:].min() == 1.0
    np.testing.assert_allclose(rates(decay="linear")[10:], 1 - np.arange(90) / 90, rtol=1e-5)
    trapezoid = rates(decay="trapezoid")
    assert trapezoid[10:81].min() == 1.0
    np.testing.assert_allclose(trapezoid[80:], 1 - np.arange(20) / 20, rtol=1e-5)
    middle = rates(decay="cosine")[55]
    assert middle == pytest.approx(0.5, abs=0.02)


def test_a_trapezoid_shorter_than_its_fall_still_starts_at_the_top():
    config = OptimizerConfig(warmup=0.9, decay="trapezoid")
    schedule = schedule_of_rate(config, 10)
    assert float(schedule(8)) == 1.0


def test_optimizers_are_the_same_at_every_rate():
    """The step scales what they say, so that runs at several rates share a program."""
    objective = toy_objective((("minimise",),))
    params = objective.init(jax.random.key(0), {})

    def updates(rate):
        config = OptimizerConfig(learning_rate=rate, layer_decay=0.9)
        optimizers = build_optimizers(config, objective, UPDATES)
        return {
            group: optimizer.update(params[group], optimizer.init(params[group]), params[group])[0]
            for group, optimizer in optimizers.items()
        }

    low, high = (jax.tree.leaves(updates(rate)) for rate in (1e-5, 1e-3))
    for one, other in zip(low, high, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one).max() > 0.01  # a tenth of 1: the first update of the warm-up


@pytest.mark.parametrize("config", [{"decay": "square"}, {"warmup": -0.1}])
def test_an_unknown_schedule_is_refused(config):
    with pytest.raises(UserError, match="optimizer"):
        schedule_of_rate(OptimizerConfig(**config), UPDATES)


def test_kernels_and_embeddings_decay_biases_and_norms_do_not():
    layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tree = {"dense": layer, "layer_norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    assert decay_mask(tree | {"word": {"embedding": jnp.ones((3, 2))}}) == {
        "dense": {"kernel": True, "bias": False},
        "layer_norm": {"scale": False, "bias": False},
        "word": {"embedding": True},
    }


def test_each_player_is_clipped_by_itself():
    grads = {
        "tutor": jnp.array([30.0, 40.0]),
        "student": jnp.array([0.3]),
        "head": jnp.array([0.4]),
    }
    clipped, norm = clip_by_player(grads, (("tutor",), ("student", "head")), 1.0)
    np.testing.assert_allclose(clipped["tutor"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped["student"], [0.3], rtol=1e-6)  # its player's norm is 0.5
    assert float(norm) == pytest.approx(float(optax.tree.norm(grads)))


def test_the_groups_of_one_player_share_one_norm():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    together, _ = clip_by_player(grads, (("a", "b"),), 1.0)
    apart, _ = clip_by_player(grads, (("a",), ("b",)), 1.0)
    np.testing.assert_allclose(together["a"], [0.6], rtol=1e-6)
    np.testing.assert_allclose(apart["a"], [1.0], rtol=1e-6)


def test_without_a_clip_norm_gradients_stay():
    clipped, _ = clip_by_player({"a": jnp.array([3.0])}, (("a",),), None)
    np.testing.assert_array_equal(clipped["a"], [3.0])
