"""Losses of a classifier: cross entropy of classes, squared error of a score; one value per row."""

import jax
import jax.numpy as jnp

from condenser_jax.types import Array


def class_losses(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Logits [B, C] and ids int32 [B] -> negative log likelihood (nats) and correctness, [B]."""
    log_probabilities = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return nll, (logits.argmax(-1) == labels).astype(nll.dtype)


def score_losses(logits: Array, scores: Array) -> Array:
    """Predictions [B, 1] and true scores [B] -> squared errors [B]."""
    return jnp.square(logits[:, 0] - scores)
