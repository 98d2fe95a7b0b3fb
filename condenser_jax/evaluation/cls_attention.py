"""Where the CLS looks, and who looks at the CLS, layer by layer.

Condenser's motivation (Gao and Callan 2021, section 3): in the middle layers of a masked LM the CLS
attends like any token and is hardly attended to, so that it gathers the text only in the last
layers; in a Condenser it is active through the late layers. Two figures per layer show it: the
entropy of the CLS's attention (low: it has chosen what to read), and the attention that it
receives from all others. Every text counts the same, however long.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.models.bert import NEGATIVE, Backbone
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.training.sharding import replicated
from condenser_jax.types import Array, Batch, Frozen, Mean, Params, Tree


class ClsAttention(NamedTuple):
    """Means over texts and heads, first layer first; beside them, what uniform attention gives."""

    entropy: list[float]  # nats
    received: list[float]  # weight that the CLS has for another attended position, mean of these
    uniform_entropy: float
    uniform_received: float


def cls_entropy(scores: Array, attention_mask: Array) -> Array:
    """Entropy of the CLS's attention of each text, nats, mean over heads: [B], float32.

    Args:
      scores: [B, H, L] of the CLS before softmax.
      attention_mask: [B, L], 1 = attended; at least the CLS is.
    """
    log_weights = _log_weights(scores, attention_mask[:, None, :])
    return -(jnp.exp(log_weights) * log_weights).sum(-1).mean(1)


def _log_weights(scores: Array, attention_mask: Array) -> Array:
    masked = jnp.where(attention_mask > 0, scores.astype(jnp.float32), NEGATIVE)
    return jax.nn.log_softmax(masked, axis=-1)


def attention_figures(scores: Array, attention_mask: Array) -> tuple[Array, Array]:
    """Entropy of the CLS's attention and attention that it receives, of each text.

    Args:
      scores: [B, H, L, L] before softmax; the CLS is position 0.
      attention_mask: [B, L], 1 = attended; at least the CLS is.

    Returns:
      entropy [B] in nats and received [B], means over heads, float32; a lone CLS receives 0.
    """
    log_weights = _log_weights(scores, attention_mask[:, None, None, :])
    to_cls = jnp.exp(log_weights[:, :, :, 0]).mean(1)  # B L
    others = (attention_mask > 0).at[:, 0].set(False)
    received = (to_cls * others).sum(1) / jnp.maximum(others.sum(1), 1)
    return cls_entropy(scores[:, :, 0], attention_mask), received


def cls_attention(
    config: BackboneConfig, params: Tree, batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh
) -> ClsAttention:
    """Measures an encoder in float32, without dropout.

    Args:
      params: the group `backbone`.
      batches: input_ids and attention_mask [B, L], all of one shape, B divisible by the devices;
        rows that attend to a lone CLS only fill up a batch and do not count.
    """
    backbone = Backbone(config, ComputeConfig())

    def total(params: Tree, batch: Batch) -> Mean:
        mask = batch["attention_mask"]
        _, kept = backbone.apply(
            {"params": params}, batch["input_ids"], mask, collect=("attention_scores",)
        )
        lengths = mask.sum(1).astype(jnp.float32)
        figures = [attention_figures(scores, mask) for scores in kept["attention_scores"]]
        figures.append((jnp.log(lengths), 1 / lengths))  # of uniform attention
        is_text = (lengths > 1).astype(jnp.float32)
        totals = jnp.matmul(jnp.array(figures), is_text, precision="highest")  # N + 1, 2
        return Mean(totals, is_text.sum())

    compiled = over_mesh(total, mesh)
    placed = jax.device_put(params, replicated(mesh))
    totals = jax.device_get([compiled(placed, place(batch, mesh)) for batch in batches])
    count = sum(float(mean.count) for mean in totals)
    means = sum(mean.total.astype(np.float64) for mean in totals) / count
    entropy, received = means.T.tolist()
    return ClsAttention(entropy[:-1], received[:-1], entropy[-1], received[-1])


def cls_entropy_evaluator(
    cls_scores: Callable, batches: Sequence[Mapping[str, np.ndarray]], mesh: Mesh
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation of an encoder in training.

    Args:
      cls_scores: (params, frozen, batch) -> the CLS's scores [B, H, L] of each layer.
      batches: unmasked, all of one size; rows that attend to a lone CLS do not count.

    Returns:
      (params, frozen) -> {"heldout/cls_entropy_layer_1", ..., "heldout/cls_entropy_uniform"}, the
      last of attention that does not choose.
    """
    placed = [place(batch, mesh) for batch in batches]
    lengths = np.concatenate([batch["attention_mask"].sum(1) for batch in batches])
    texts = int((lengths > 1).sum())
    uniform = {"heldout/cls_entropy_uniform": float(np.log(lengths).sum() / texts)}

    def totals(params: Params, frozen: Frozen, batch: Batch) -> Array:
        mask = batch["attention_mask"]
        entropies = [cls_entropy(scores, mask) for scores in cls_scores(params, frozen, batch)]
        is_text = (mask.sum(1) > 1).astype(jnp.float32)
        return jnp.matmul(jnp.stack(entropies), is_text, precision="highest")  # N

    compiled = over_mesh(totals, mesh)

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        found = jax.device_get([compiled(params, frozen, batch) for batch in placed])
        means = np.array(found, np.float64).sum(axis=0) / texts
        layers = {f"heldout/cls_entropy_layer_{i}": float(x) for i, x in enumerate(means, start=1)}
        return layers | uniform

    return evaluate
