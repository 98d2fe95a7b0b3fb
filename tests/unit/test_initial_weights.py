"""Initial weights: every layer has its own, and drawing more layers compiles no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.models.bert import LayerStack
from condenser_jax.models.config import ComputeConfig
from tests.helpers import compile_quickly, tiny_backbone


def initial(layers):
    """The function that draws a stack's weights by a key."""
    config = tiny_backbone(num_layers=layers)
    stack = LayerStack(config, ComputeConfig(), num_layers=layers, first_site=0)
    hidden = jnp.zeros((1, 2, config.hidden_size))
    return lambda key: stack.init(key, hidden, jnp.ones((1, 2)))["params"]


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(initial(3))(jax.random.key(7))


def test_layers_drawn_in_one_loop_are_those_drawn_one_by_one(drawn, monkeypatch):
    def one_by_one(self):
        names = (f"layer_{i}" for i in range(self.num_layers))
        return [self.param(name, self._init_layer) for name in names]

    monkeypatch.setattr(LayerStack, "_params", one_by_one)
    alone = jax.jit(initial(3))(jax.random.key(7))
    assert jax.tree.structure(alone) == jax.tree.structure(drawn)
    for ours, theirs in zip(jax.tree.leaves(drawn), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_two_layers_begin_alike(drawn):
    kernels = [layer["attention"]["query"]["kernel"] for layer in drawn.values()]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 3


def test_more_layers_are_hardly_more_to_compile():
    few, many = (compile_quickly(initial(n), jax.random.key(0)).as_text() for n in (2, 6))
    assert len(many.splitlines()) < 1.5 * len(few.splitlines())  # one by one: 2.9
