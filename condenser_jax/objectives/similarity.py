"""Sentence similarity as regression (Reimers and Gurevych 2019, section 3; Gao and Callan 2021,
section 4.2): one encoder for both sentences, whose cosine is to be what people said.

    loss = mean over pairs of (cos(u, v) - similarity)^2

The papers read the vector off the CLS; mean pooling is a known reason for failed reproductions.
"""

import dataclasses

from condenser_jax.errors import choose
from condenser_jax.losses.siamese import cosine
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.pooling import POOLINGS
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.siamese import build_siamese
from condenser_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class SimilarityConfig:
    """The choices of similarity regression."""

    name: str = "similarity"
    pooling: str = "cls"  # or "mean"

    def __post_init__(self) -> None:
        choose("objective.pooling", self.pooling, POOLINGS)


def build(backbone: BackboneConfig, compute: ComputeConfig, options: SimilarityConfig) -> Objective:
    """The objective `similarity`, on rows of two texts with `similarity` float32 [B] within 0 and
    1.
    """

    def of_rows(vectors: Array, batch: Batch) -> dict[str, Array]:
        error = cosine(vectors[:, 0], vectors[:, 1]) - batch["similarity"]
        return {"loss": error**2}

    return build_siamese(backbone, compute, options.pooling, of_rows)
