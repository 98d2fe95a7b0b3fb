"""Contrast of spans over the global batch (Gao and Callan 2022, coCondenser, eq. 2).

    L_co(ij) = -log  exp<h_i1, h_i2> / sum over all other spans k of exp<h_ij, h_k>

Rows 2i and 2i + 1 are two spans of one document. A span has one positive, its partner; every span
of another document is a negative; itself is neither, nor is any further span of its own document.
"""

import jax
import jax.numpy as jnp

from condenser_jax.types import Array

SIMILARITIES = ("dot", "cosine")
EXCLUDED = -1e9  # the score of what is no candidate: large, but finite
FILLER = -1  # the document of a row that is no span: no negative for others, no loss of its own


def span_contrast(
    vectors: Array, documents: Array, similarity: str = "dot", temperature: float = 1.0
) -> tuple[Array, Array]:
    """Negative log likelihood of each span's partner among the spans of the batch.

    Args:
      vectors: [B, D]; rows 2i and 2i + 1 belong together.
      documents: int32 [B], equal for spans of one document, FILLER where there is no span.
      similarity: "dot", or "cosine" (of vectors of length 1).
      temperature: scores are divided by it.

    Returns:
      nll [B] in nats and correct [B] (1 where the partner has the highest score), at least float32.
    """
    wide = vectors.astype(jnp.promote_types(jnp.float32, vectors.dtype))
    if similarity == "cosine":
        wide = wide / jnp.linalg.norm(wide, axis=-1, keepdims=True)
    scores = jnp.einsum("id,kd->ik", wide, wide, precision="highest") / temperature
    is_partner = _is_partner(len(documents))
    is_other = (documents[:, None] != documents) & (documents != FILLER)
    of_partner = jnp.where(is_partner, scores, 0.0).sum(-1)
    of_others = jnp.where(is_other, scores, EXCLUDED)
    nll = jax.nn.logsumexp(jnp.where(is_partner, scores, of_others), axis=-1) - of_partner
    return nll, (of_partner > of_others.max(-1)).astype(nll.dtype)


def _is_partner(rows: int) -> Array:
    """bool [B, B]: whether column k is the partner of row i."""
    number = jnp.arange(rows)
    return (number ^ 1)[:, None] == number
