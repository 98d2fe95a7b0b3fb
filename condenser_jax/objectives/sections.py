"""Which sentence belongs to the same section (Ein Dor et al. 2018): triplets of an anchor, a
sentence of its section, and one of another section of the same article.

    loss = mean over triplets of max(0, d(a, p) - d(a, n) + margin), d Euclid's distance
"""

import dataclasses

from condenser_jax.errors import UserError, choose
from condenser_jax.losses.siamese import triplet
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.pooling import POOLINGS
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.siamese import build_siamese
from condenser_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class SectionsConfig:
    """The choices of the triplet loss."""

    name: str = "sections"
    pooling: str = "cls"  # or "mean"
    margin: float = 5.0  # of distances; 5 as in sentence-transformers

    def __post_init__(self) -> None:
        choose("objective.pooling", self.pooling, POOLINGS)
        if not self.margin > 0:
            raise UserError(f"objective.margin is {self.margin}; expected above 0.")


def build(backbone: BackboneConfig, compute: ComputeConfig, options: SectionsConfig) -> Objective:
    """The objective `sections`, on rows of three texts: anchor, positive, negative."""

    def of_rows(vectors: Array, batch: Batch) -> dict[str, Array]:
        del batch
        losses, nearer = triplet(vectors[:, 0], vectors[:, 1], vectors[:, 2], options.margin)
        return {"loss": losses, "accuracy": nearer}

    return build_siamese(backbone, compute, options.pooling, of_rows)
