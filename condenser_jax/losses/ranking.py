"""Losses of dense retrieval on scores of queries against passages (Karpukhin et al. 2020, InfoNCE;
Hofstaetter et al. 2020, margin-MSE).

A query has a group of passages: first its positive, then its hard negatives. The passages of all
other queries are negatives too, but for what is known to be a positive of it.
"""

import jax
import jax.numpy as jnp

from condenser_jax.types import Array

ABSENT = -1  # in a list of passages: none
EXCLUDED = -1e9  # the score of what is no candidate: large, but finite


def is_candidate(
    passages: Array, positives: Array, queries_together: int, exclude_copies: bool = True
) -> Array:
    """Which passages of the batch stand in the sum of which query.

    Args:
      passages: int32 [Q, G] numbers in the corpus, the positive of the query first.
      positives: int32 [Q, K] all known positives of the query, ABSENT where there are fewer.
      queries_together: negatives are shared by blocks of so many consecutive queries.
      exclude_copies: whether known positives elsewhere in the batch are left out of the sum.

    Returns:
      bool [Q, Q * G]; a query's own positive always is one.
    """
    queries, group = passages.shape
    number = jnp.arange(queries)
    column = jnp.arange(queries * group)
    block = (number // queries_together)[:, None] == column // group // queries_together
    if not exclude_copies:
        return block
    flat = passages.reshape(-1)
    known = (positives[:, :, None] == flat).any(1)
    own_positive = (number * group)[:, None] == column
    return block & (~known | own_positive)


def info_nce(scores: Array, candidates: Array, group: int) -> tuple[Array, Array]:
    """-log softmax of each query's positive among its candidates.

    Args:
      scores: [Q, Q * group], columns in the order of the passages; candidates: bool, the same.

    Returns:
      nll [Q] in nats, and correct [Q]: 1 where the positive has the highest score.
    """
    positive = jnp.arange(len(scores)) * group
    is_positive = positive[:, None] == jnp.arange(scores.shape[1])
    of_positive = jnp.where(is_positive, scores, 0.0).sum(-1)
    masked = jnp.where(candidates, scores, EXCLUDED)
    best_other = jnp.where(is_positive, EXCLUDED, masked).max(-1)
    nll = jax.nn.logsumexp(masked, axis=-1) - of_positive
    return nll, (of_positive > best_other).astype(nll.dtype)


def own_scores(scores: Array, group: int) -> Array:
    """Scores [Q, Q * group] -> those of each query's own group [Q, group]."""
    queries = len(scores)
    blocks = scores.reshape(queries, queries, group)
    return jnp.where(jnp.eye(queries, dtype=bool)[..., None], blocks, 0.0).sum(1)


def distil_kl(scores: Array, teacher: Array) -> Array:
    """KL(teacher || student) of each query's group [Q, G], both as softmax over the group; [Q]."""
    wanted, given = jax.nn.log_softmax(teacher, -1), jax.nn.log_softmax(scores, -1)
    return (jnp.exp(wanted) * (wanted - given)).sum(-1)


def distil_margin_mse(scores: Array, teacher: Array) -> Array:
    """Mean squared difference of the margins positive - negative, over the group's negatives; [Q].

    `scores` and `teacher` are [Q, G] with G of at least 2.
    """
    ours, theirs = (x[:, :1] - x[:, 1:] for x in (scores, teacher))
    return ((ours - theirs) ** 2).mean(-1)
