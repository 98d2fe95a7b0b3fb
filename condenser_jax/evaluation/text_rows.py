"""What the vectors of pairs or triplets are worth, while an encoder is trained on such rows."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.retrieval.metrics import cosines, pearson, spearman, triplet_hits
from condenser_jax.types import Frozen, Params


def text_rows_evaluator(
    embed: Callable,
    batches: Sequence[Mapping[str, np.ndarray]],
    numbers: np.ndarray,
    figures: Callable[[np.ndarray], dict[str, float]],
    mesh: Mesh,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      embed: (params, frozen, batch) -> text vectors [B, D].
      batches: every text once, in its order; what comes after the last text only fills up.
      numbers: int [n, T], the texts of each row.
      figures: vectors float32 [n, T, D] -> figures.

    Returns:
      (params, frozen) -> figures.
    """
    placed = [place(batch, mesh) for batch in batches]
    compiled = over_mesh(embed, mesh)

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        found = np.concatenate([compiled(params, frozen, batch) for batch in placed])
        return figures(found.astype(np.float32)[numbers])

    return evaluate


def similarity_figures(vectors: np.ndarray, similarity: np.ndarray) -> dict[str, float]:
    """Correlations of the cosines of vectors [n, 2, D] with what people said [n], of 0 to 1, and
    the mean squared error that is trained.
    """
    found = cosines(vectors[:, 0], vectors[:, 1])
    return {
        "heldout/spearman": spearman(found, similarity),
        "heldout/pearson": pearson(found, similarity),
        "heldout/squared_error": float(((found - similarity) ** 2).mean()),
    }


def section_figures(vectors: np.ndarray) -> dict[str, float]:
    """The share of triplets [n, 3, D] whose anchor is nearer to its positive."""
    return {"heldout/accuracy": float(triplet_hits(*np.moveaxis(vectors, 1, 0)).mean())}
