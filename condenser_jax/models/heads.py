"""Heads on a backbone: the masked-LM head, tied to the word embeddings, the Condenser head, and
what distillation puts beside a student.
"""

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
        """Hidden states [..., D] -> transformed states [..., E] and the logits' bias [padded V].

        The bias of padded vocabulary slots is -1e9, so that no softmax, argmax or sample ever sees
        them.
        """
        x = gelu(dense(states, self.config.embedding_width, self.config, self.compute, "transform"))
        x = layer_norm(self.config, self.compute)(x)
        shape = (self.config.padded_vocab_size,)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return x, without_padding(bias, self.config)


class Tutor(nn.Module):
    """The policy G of Tutor-KD (Kim et al. 2022) on the teacher's states: dense, GELU, LayerNorm,
    and a decoder of its own, tied to nothing.
    """

    config: BackboneConfig  # the teacher's
    compute: ComputeConfig

    @nn.compact
    def __call__(self, states: Array) -> tuple[Array, Array, Array]:
        """Teacher states [..., D] -> what the vocabulary product needs: transformed states
        [..., D], decoder [padded V, D], bias [padded V], -1e9 on padded vocabulary slots.
        """
        config, init = self.config, nn.initializers.normal(self.config.initializer_range)
        x = gelu(dense(states, config.hidden_size, config, self.compute, "transform"))
        x = layer_norm(config, self.compute)(x)
        shape = (config.padded_vocab_size, config.hidden_size)
        decoder = nn.Embed(*shape, embedding_init=init, name="decoder").embedding
        bias = self.param("bias", nn.initializers.zeros, shape[:1], jnp.float32)
        return x, decoder, without_padding(bias, config)


class RatioHead(nn.Module):
    """The student's judgement of each token: dense, GELU, LayerNorm, linear to a logit."""

    config: BackboneConfig  # the student's
    compute: ComputeConfig

    @nn.compact
    def __call__(self, states: Array) -> Array:
        """States [..., D] -> logits [...] of the ratio, at least float32."""
        config = self.config
        x = gelu(dense(states, config.hidden_size, config, self.compute, "transform"))
        x = layer_norm(config, self.compute)(x)
        return dense(x, 1, config, self.compute.wide, "logit")[..., 0]


class Fit(nn.Module):
    """W_fit and its bias: a student's states in the width of the teacher's."""

    config: BackboneConfig  # the student's
    compute: ComputeConfig
    width: int  # the teacher's

    @nn.compact
    def __call__(self, states: Array) -> Array:
        """States [..., D] -> [..., D of the teacher]."""
        return dense(states, self.width, self.config, self.compute, "projection")


def without_padding(bias: Array, config: BackboneConfig) -> Array:
    """The bias [padded V] of logits, -1e9 where the vocabulary is padded."""
    return jnp.where(jnp.arange(len(bias)) < config.vocab_size, bias, PADDED_LOGIT)


def condenser_head(config: BackboneConfig, compute: ComputeConfig, num_layers: int) -> LayerStack:
    """The Condenser head (Gao and Callan 2021, eq. 5): layers over [late CLS; early tokens]."""
    return LayerStack(config, compute, num_layers, HEAD_SITE)
