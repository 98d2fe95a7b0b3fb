"""How often a held-out document's other span is the nearest, among the spans of some hundred
documents.

The question that coCondenser trains (Gao and Callan 2022, section 3.2), asked of text vectors
without fine-tuning. Under MLM and Condenser it is reported, not expected to rise: an untrained
post-norm CLS is a lexical hash, and both may lose that before they gain anything.
"""

import jax
import numpy as np

from condenser_jax.data.hashing import hash_u64, two_below
from condenser_jax.evaluation.base import spread
from condenser_jax.losses.contrastive import span_contrast

CHOOSE_DOCUMENT, CHOOSE_SPAN = 31, 32  # what a hash is drawn for
FEWER = 500  # documents of a second, smaller pool: the size that other reports use


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


def retrieval_figures(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How well vectors find their partners by dot product.

    Args:
      first, second: [n, D]; equal rows are two spans of one document.

    Returns:
      "heldout/span_retrieval@1" and "_mrr" among all n partners, "@1_among_500" among 500 of them
      where there are as many, and "heldout/contrastive_loss": the mean over all 2n spans of the
      loss that coCondenser trains (nats, temperature 1, 2n - 2 negatives). It shows learning that
      no rank shows yet.
    """
    ranks = ranks_of_partners(first @ second.T)
    figures = {
        "heldout/span_retrieval@1": float((ranks == 1).mean()),
        "heldout/span_retrieval_mrr": float((1.0 / ranks).mean()),
        "heldout/contrastive_loss": _contrastive_loss(first, second),
    }
    if len(first) >= FEWER:
        some = spread(len(first), FEWER)
        ranks = ranks_of_partners(first[some] @ second[some].T)
        figures[f"heldout/span_retrieval@1_among_{FEWER}"] = float((ranks == 1).mean())
    return figures


def ranks_of_partners(scores: np.ndarray) -> np.ndarray:
    """Ranks [n], from 1, of the diagonal in each row of scores [n, n]; ties count against it."""
    partner = np.diagonal(scores)[:, None]
    return (scores >= partner).sum(axis=1)


def _contrastive_loss(first: np.ndarray, second: np.ndarray) -> float:
    vectors = np.stack([first, second], axis=1).reshape(-1, first.shape[1])
    documents = np.repeat(np.arange(len(first), dtype=np.int32), 2)
    nll, _ = jax.jit(span_contrast)(vectors, documents)
    return float(nll.mean())
