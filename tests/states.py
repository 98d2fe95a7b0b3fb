"""A small train state and its shapes, for tests of what is saved and read back."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: dict
    finite: jax.Array


def make_state(width=8, scale=1.0):
    attention = {"query": {"kernel": scale * jnp.arange(width * 8.0).reshape(width, 8)}}
    params = {"backbone": attention, "mlm_head": {"bias": scale * jnp.ones(16)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    moments = {group: optimizer.init(tree) for group, tree in params.items()}
    return State(jnp.int32(3), params, moments, jnp.bool_(True))


def noise(state, seed=0):
    """The state with random numbers in place of its parameters: what no compression shortens."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), state.params)
    return state.replace(params=params)


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)
