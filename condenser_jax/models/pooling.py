"""From hidden states to a text's vector."""

import jax.numpy as jnp

from condenser_jax.types import Array

POOLINGS = ("cls", "mean")


def mean_pool(hidden: Array, attention_mask: Array) -> Array:
    """The mean of the attended positions of `hidden` [B, L, D], specials included, as
    sentence-transformers has it; [B, D], at least float32.
    """
    wide = hidden.astype(jnp.promote_types(jnp.float32, hidden.dtype))
    attended = attention_mask.astype(wide.dtype)[..., None]
    return (wide * attended).sum(1) / jnp.maximum(attended.sum(1), 1.0)


def normalise(vectors: Array) -> Array:
    """Vectors [..., D] of length 1; one of length 0 stays."""
    wide = vectors.astype(jnp.promote_types(jnp.float32, vectors.dtype))
    length = jnp.sqrt((wide * wide).sum(-1, keepdims=True))
    return wide / jnp.maximum(length, 1e-12)
