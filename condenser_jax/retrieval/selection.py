"""Fewer or worse labels, on purpose: the papers' questions to a retriever are what it learns from
few queries, and from positives of which some are wrong (Gao and Callan 2021, section 4; 2022,
section 4.4).
"""

import numpy as np

from condenser_jax.data.hashing import hash_u64, integers_below, uniform
from condenser_jax.errors import UserError
from condenser_jax.retrieval.training_texts import TrainingTexts

LIMIT, IS_WRONG, WRONG = 61, 62, 63  # what a hash is drawn for


def some_of(total: int, limit: int, seed: int, what: str) -> np.ndarray:
    """Returns `limit` numbers below `total` in order (0: all), a larger limit containing a smaller
    one. Raises UserError when there are not so many.
    """
    if limit == 0:
        return np.arange(total)
    if not 0 < limit <= total:
        raise UserError(
            f"data.train_limit is {limit}; expected 1 to {total}, as many {what} as there are, or "
            "0 for all."
        )
    return np.sort(np.argsort(hash_u64(LIMIT, seed, np.arange(total)), kind="stable")[:limit])


def limited(data: TrainingTexts, limit: int, seed: int) -> TrainingTexts:
    """Returns `limit` of the training queries, as `some_of` draws them."""
    chosen = some_of(len(data.queries), limit, seed, "queries")
    if len(chosen) == len(data.queries):
        return data
    ids = data.queries.ids
    return TrainingTexts(
        data.queries.only([ids[number] for number in chosen]),
        data.passages,
        data.positives.take(chosen),
        data.negatives.take(chosen),
    )


def with_wrong_positives(data: TrainingTexts, share: float, seed: int) -> TrainingTexts:
    """Returns the data with a share of the positives replaced by passages drawn at random, which
    have no scores.

    Raises UserError for what is no share.
    """
    if not 0 <= share < 1:
        raise UserError(
            f"data.wrong_positives is {share}; expected a share of at least 0 and under 1."
        )
    if share == 0:
        return data
    places = np.arange(len(data.positives.numbers))
    drawn = integers_below(len(data.passages), WRONG, seed, places).astype(np.int32)
    is_wrong = uniform(IS_WRONG, seed, places) < share
    numbers = np.where(is_wrong, drawn, data.positives.numbers)
    return data._replace(positives=data.positives._replace(numbers=numbers, scores=None))
