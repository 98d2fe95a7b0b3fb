"""How text vectors lie in their space: whether a document's spans lie together, whether all vectors
use the space, and whether they have collapsed.
"""

import numpy as np

UNIFORMITY_T = 2.0  # Wang and Isola's t; their alpha is 2 too
ROUNDING = 1e-6  # of the norm of all vectors: what float32 does not tell from 0


def geometry_figures(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Alignment, uniformity and effective rank of vectors [n, D]; equal rows are partners."""
    return {
        "heldout/alignment": alignment(first, second),
        "heldout/uniformity": (uniformity(first) + uniformity(second)) / 2,
        "heldout/effective_rank": effective_rank(np.concatenate([first, second])),
    }


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance of partners on the unit sphere, 0 (equal) to 4 (opposite).

    Wang and Isola 2020, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere", section 4.1, alpha 2.
    """
    difference = _on_sphere(first) - _on_sphere(second)
    return float((difference**2).sum(axis=1).mean())


def uniformity(vectors: np.ndarray) -> float:
    """Logarithm of the mean of exp(-2 d^2) over all pairs of vectors [n, D] on the unit sphere,
    where d is their distance: 0 (all are equal) down to about -4 (spread evenly). The same paper.

    No two vectors may be of one document: that they are near is no lack of uniformity. Raises
    ValueError for fewer than two vectors.
    """
    if len(vectors) < 2:
        raise ValueError("uniformity needs two vectors")
    unit = _on_sphere(vectors)
    squared = np.maximum(2.0 - 2.0 * (unit @ unit.T), 0.0)
    closeness = np.exp(-UNIFORMITY_T * squared)
    np.fill_diagonal(closeness, 0.0)
    return float(np.log(closeness.sum() / (len(unit) * (len(unit) - 1))))


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the singular values, divided by their sum, of the centred vectors
    [n, D]: 1 (all on one line) to D (every direction alike); 0 where all vectors are equal.

    Roy and Vetterli 2007, "The effective rank", definition 1. Centred, so that the direction that
    all vectors share, which tells no texts apart, does not count.
    """
    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    squares = np.linalg.eigvalsh(centred.T @ centred)  # six times as fast as the svd
    values = np.sqrt(np.maximum(squares, 0.0))
    values = values[values > ROUNDING * np.linalg.norm(wide)]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _on_sphere(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
