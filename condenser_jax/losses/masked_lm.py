"""Masked language modelling as a weighted sum over the masked slots of the global batch."""

from condenser_jax.types import Array, Mean, Scalar


def masked_lm(
    nll: Array, correct: Array, weights: Array, masked: Scalar, prefix: str = ""
) -> tuple[Scalar, dict[str, Mean]]:
    """Mean cross entropy of the masked tokens of the global batch.

    Args:
      nll: [B, M] negative log likelihoods (nats). correct: [B, M], 1 where the label is the argmax.
      weights: [B, M], 0 on unused slots.
      masked: the number of masked tokens in the uncut global batch, so that parts of one add up.
      prefix: of the metrics' names.

    Returns:
      the share of these rows in the mean, and the metrics "<prefix>loss" and "<prefix>accuracy".
    """
    count = weights.sum()
    metrics = {
        f"{prefix}{name}": Mean((values * weights).sum(), count)
        for name, values in (("loss", nll), ("accuracy", correct))
    }
    return (nll * weights).sum() / masked, metrics
