"""Masked language modelling as a weighted sum over the masked slots of the global batch."""

from condenser_jax.losses.cross_entropy import tied_cross_entropy
from condenser_jax.types import Array, Mean, Scalar


def masked_lm(
    states: Array, table: Array, bias: Array, masked_ids: Array, masked_weights: Array, masked: Scalar
) -> tuple[Scalar, dict[str, Mean]]:
    """Mean cross entropy of the masked tokens of the global batch.

    Args:
      states: [B, M, D], transformed by the MLM head. table: [V, D]. bias: [V].
      masked_ids: int32 [B, M]. masked_weights: [B, M], 0 on unused slots.
      masked: the number of masked tokens in the uncut global batch, so that parts of a batch add up.

    Returns:
      the share of these rows in the mean (nats), and the metrics "loss" and "accuracy".
    """
    nll, correct = tied_cross_entropy(states, table, bias, masked_ids)
    total = (nll * masked_weights).sum()
    metrics = {
        "loss": Mean(total, masked_weights.sum()),
        "accuracy": Mean((correct * masked_weights).sum(), masked_weights.sum()),
    }
    return total / masked, metrics
