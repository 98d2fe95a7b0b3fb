"""Heads on a backbone: the masked-LM head, tied to the word embeddings, and the Condenser head."""

import flax.linen as nn
import jax.numpy as jnp

from condenser_jax.models.bert import HEAD_SITE, LayerStack, dense, gelu, layer_norm
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.types import Array

PADDED_LOGIT = -1e9  # of padded vocabulary slots: -inf would turn a KL divergence into NaN


class MlmHead(nn.Module):
    """Dense, GELU, LayerNorm; the vocabulary product is tied (`losses/cross_entropy.py`)."""

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, states: Array) -> tuple[Array, Array]:
        """Hidden states [..., D] -> transformed states [..., D] and the logits' bias [padded V].

        The bias of padded vocabulary slots is -1e9, so that no softmax, argmax or sample ever sees
        them.
        """
        x = gelu(dense(states, self.config.hidden_size, self.config, self.compute, "transform"))
        x = layer_norm(self.config, self.compute)(x)
        size = self.config.padded_vocab_size
        bias = self.param("bias", nn.initializers.zeros, (size,))
        return x, jnp.where(jnp.arange(size) < self.config.vocab_size, bias, PADDED_LOGIT)


def condenser_head(config: BackboneConfig, compute: ComputeConfig, num_layers: int) -> LayerStack:
    """The Condenser head (Gao and Callan 2021, eq. 5): layers over [late CLS; early tokens]."""
    return LayerStack(config, compute, num_layers, HEAD_SITE)
