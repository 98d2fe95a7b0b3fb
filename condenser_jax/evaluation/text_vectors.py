"""What the vectors of held-out spans are worth: every figure from one pass over the spans."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.evaluation.span_retrieval import retrieval_figures
from condenser_jax.evaluation.vector_geometry import geometry_figures
from condenser_jax.types import Frozen, Params


def text_vectors_evaluator(
    embed: Callable, sides: Sequence[Sequence[Mapping[str, np.ndarray]]], mesh: Mesh
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      embed: (params, frozen, batch) -> text vectors [B, D].
      sides: unmasked batches of the first spans, and of their partners in the same order; rows that
        attend to a lone CLS only fill up a batch and do not count.

    Returns:
      (params, frozen) -> the figures of `retrieval_figures` and `geometry_figures`.
    """
    placed = [[place(batch, mesh) for batch in side] for side in sides]
    real = [
        np.concatenate([batch["attention_mask"].sum(1) > 1 for batch in side]) for side in sides
    ]
    compiled = over_mesh(embed, mesh)

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        first, second = (
            np.concatenate([compiled(params, frozen, batch) for batch in side])[rows]
            for side, rows in zip(placed, real, strict=True)
        )
        first, second = first.astype(np.float32), second.astype(np.float32)
        return retrieval_figures(first, second) | geometry_figures(first, second)

    return evaluate
