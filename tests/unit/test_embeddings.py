"""The gradient of a word's embedding is a sum over its uses, exact enough for thousands of them."""

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.models.bert import Embeddings
from condenser_jax.models.config import ComputeConfig
from tests.helpers import assert_close, tiny_backbone

ROWS, LENGTH, WORD = 64, 32, 7


def gradient_of_word(dtype: str):
    """Gradient [D] of the row of one word that stands at every position, 2048 times in all."""
    config = tiny_backbone()
    model = Embeddings(config, ComputeConfig(dtype=dtype))
    ids, mask = np.full((ROWS, LENGTH), WORD), np.ones((ROWS, LENGTH), int)
    params = model.init(jax.random.key(0), ids, mask, None, None)
    direction = jax.random.normal(jax.random.key(1), (config.hidden_size,))

    def along(params):
        return (model.apply(params, ids, mask, None, None).astype("float32") @ direction).sum()

    return jax.grad(along)(params)["params"]["word"]["embedding"][WORD]


def test_the_gradient_of_a_frequent_word_is_the_same_in_bfloat16():
    assert_close(gradient_of_word("bfloat16"), gradient_of_word("float32"), 0.02)


def test_a_table_that_is_looked_up_in_bfloat16_would_lose_most_of_the_sum():
    def looked_up(table):
        return table.astype(jnp.bfloat16)[jnp.full(ROWS * LENGTH, WORD)].astype("float32").sum()

    gradient = jax.grad(looked_up)(jnp.zeros((WORD + 1, 1)))
    assert gradient[WORD, 0] < 0.5 * ROWS * LENGTH
