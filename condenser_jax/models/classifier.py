"""Heads of classifiers: each is the head of the Hugging Face class that the export becomes.

BERT      pooler (dense, tanh), dropout, linear
RoBERTa   dropout, dense, tanh, dropout, linear
ELECTRA   dropout, dense, GELU, dropout, linear
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from condenser_jax.models.bert import dense, gelu
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout, drop_hidden
from condenser_jax.types import Array

CLASSIFIER_SITE = 8192  # of two dropouts; layers of heads stay below
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"roberta": jnp.tanh, "electra": gelu}


class Pooler(nn.Module):
    """BERT's pooler: dense and tanh on the CLS."""

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, cls: Array) -> Array:
        """Last states of the CLS [B, D] -> [B, D]."""
        return jnp.tanh(dense(cls, self.config.hidden_size, self.config, self.compute, "transform"))


class Classifier(nn.Module):
    """From the CLS, or what BERT's pooler makes of it, to logits or a score."""

    config: BackboneConfig
    compute: ComputeConfig
    outputs: int
    rate: float  # of dropout

    @nn.compact
    def __call__(self, cls: Array, dropout: Dropout | None) -> Array:
        """[B, D] -> [B, outputs], at least float32."""
        x = self._drop(cls, dropout, 0)
        if not self.config.has_pooler:
            width = self.config.hidden_size
            x = dense(x, width, self.config, self.compute, "transform")
            x = self._drop(ACTIVATIONS[self.config.model_type](x), dropout, 1)
        return dense(x, self.outputs, self.config, self.compute.wide, "output")

    def _drop(self, x: Array, dropout: Dropout | None, place: int) -> Array:
        return drop_hidden(x[:, None], self.rate, dropout, CLASSIFIER_SITE + place)[:, 0]
