"""Losses on the vectors of a few texts: regression of their cosine (Reimers and Gurevych 2019,
section 3), and the triplet loss (Ein Dor et al. 2018).
"""

import jax
import jax.numpy as jnp

from condenser_jax.types import Array

SMALLEST = 1e-30  # square of the product of two lengths that is still told from 0


def cosine(first: Array, second: Array) -> Array:
    """Cosines [...] of vectors [..., D], at least float32; 0 where one of them is 0."""
    wide = jnp.promote_types(jnp.float32, first.dtype)
    first, second = first.astype(wide), second.astype(wide)
    squares = (first * first).sum(-1) * (second * second).sum(-1)
    return (first * second).sum(-1) / jnp.sqrt(jnp.maximum(squares, SMALLEST))


def distance(first: Array, second: Array) -> Array:
    """Euclid's distances [...] of vectors [..., D], at least float32; where two vectors are equal
    the gradient is 0, not the infinity of a root.
    """
    difference = first - second
    wide = difference.astype(jnp.promote_types(jnp.float32, difference.dtype))
    square = (wide * wide).sum(-1)
    differs = square > 0
    return jnp.where(differs, jnp.sqrt(jnp.where(differs, square, 1.0)), 0.0)


def triplet(anchor: Array, positive: Array, negative: Array, margin: float) -> tuple[Array, Array]:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d Euclid's distance.

    Args:
      anchor, positive, negative: [..., D].

    Returns:
      losses [...], and [...] 1 where the positive is nearer.
    """
    near, far = distance(anchor, positive), distance(anchor, negative)
    return jax.nn.relu(near - far + margin), (near < far).astype(near.dtype)
