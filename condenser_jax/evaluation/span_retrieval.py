"""How often a held-out document's other span is the nearest, among the spans of some hundred
documents.

The question that coCondenser trains (Gao and Callan 2022, section 3.2), asked of text vectors
without fine-tuning. Under MLM and Condenser
it is reported, not expected to rise: an untrained post-norm CLS is a lexical hash, and both may
lose that before they gain anything.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from condenser_jax.data.hashing import hash_u64, two_below
from condenser_jax.evaluation.base import place, replicated
from condenser_jax.types import Frozen, Params

CHOOSE_DOCUMENT, CHOOSE_SPAN = 31, 32  # what a hash is drawn for


def choose_pairs(documents: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Two distinct spans of each of up to `limit` documents that have two.

    Args:
      documents: int64 [D + 1]; document d has the spans documents[d] : documents[d + 1].

    Returns:
      int64 [n, 2] span numbers, a function of (seed, document) alone.
    """
    starts, sizes = np.asarray(documents[:-1]), np.diff(documents)
    usable = np.flatnonzero(sizes >= 2)
    order = np.argsort(hash_u64(CHOOSE_DOCUMENT, seed, usable), kind="stable")
    chosen = np.sort(usable[order[:limit]])
    return starts[chosen, None] + np.stack(two_below(sizes[chosen], CHOOSE_SPAN, seed, chosen), 1)


def span_retrieval_evaluator(
    embed: Callable, sides: Sequence[Sequence[Mapping[str, np.ndarray]]], mesh: Mesh
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      embed: (params, frozen, batch) -> text vectors [B, D].
      sides: unmasked batches of the first spans, and of their partners in the same order; rows that
        attend to a lone CLS only
        fill up a batch.

    Returns:
      (params, frozen) -> {"heldout/span_retrieval@1", "heldout/span_retrieval_mrr"}: the rank of a
      span's partner by dot product among all partners.
    """
    placed = [[place(batch, mesh) for batch in side] for side in sides]
    real = [
        np.concatenate([batch["attention_mask"].sum(1) > 1 for batch in side]) for side in sides
    ]
    compiled = jax.jit(embed, out_shardings=replicated(mesh))

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        first, second = (
            np.concatenate([compiled(params, frozen, batch) for batch in side])[rows]
            for side, rows in zip(placed, real, strict=True)
        )
        ranks = ranks_of_partners(first.astype(np.float32) @ second.astype(np.float32).T)
        return {
            "heldout/span_retrieval@1": float((ranks == 1).mean()),
            "heldout/span_retrieval_mrr": float((1.0 / ranks).mean()),
        }

    return evaluate


def ranks_of_partners(scores: np.ndarray) -> np.ndarray:
    """Ranks [n], from 1, of the diagonal in each row of scores [n, n]; ties count against it."""
    partner = np.diagonal(scores)[:, None]
    return (scores >= partner).sum(axis=1)
