"""Hard negatives: what a ranking finds near a query, and what does not answer it.

Of each query's best passages the positives and their near-copies are left out, and those that score
too near to a positive, for they are often answers that nobody judged (Moreira et al. 2024,
arXiv 2407.15831). Of what is left some are drawn, by a hash of (seed, query, passage): the same
whatever else is mined, and in whatever order.

**A near-copy** has the same words as a positive, or shares with it at least half of the runs of 8
words (8-grams) of the shorter of the two. Words are letters and digits, in lower case, of title and
text; a passage of fewer than 8 words is one run.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from condenser_jax.data.hashing import hash_u64
from condenser_jax.data.near_copies import GRAM, gram_hashes
from condenser_jax.data.ranking_batches import Lists
from condenser_jax.errors import UserError
from condenser_jax.retrieval.texts import Texts
from condenser_jax.retrieval.training_texts import TrainingTexts, lists_of

DRAW = 51  # what a hash is drawn for
COPIED = 0.5  # of the 8-grams: from here on a passage is a near-copy
REMEMBERED = 65536  # passages whose 8-grams are kept
WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class MiningOptions:
    """Which of a ranking's passages become negatives."""

    depth: int = 200  # the best so many of each query are candidates
    negatives: int = 30  # of each query, drawn from them
    margin: float | None = None  # a negative scores at least so much below the best positive
    share: float | None = None  # of the best positive's score: a negative has at most so much
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "negatives"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} mines nothing; use 1 or more")
        if self.margin is not None and not 0 <= self.margin < float("inf"):
            raise UserError(
                f"margin {self.margin:g} is not a distance between scores; use 0 or more"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"share {self.share:g} of a positive's score is not within 0 and 1")


class Ranking(NamedTuple):
    """The best passages of each query, best first."""

    rows: np.ndarray  # int64 [Q, k], numbers of passages; -1 where there are no more
    scores: np.ndarray  # float [Q, k]


class Mined(NamedTuple):
    """Negatives of every query, best first, and what was left out on the way to them."""

    negatives: Lists
    copies: int  # near-copies of positives
    too_near: int  # by margin or share


def mine(ranking: Ranking, texts: TrainingTexts, options: MiningOptions) -> Mined:
    """Returns the negatives of every query of `texts` in its row of `ranking`: no positive, and not
    the passage of the query's own id, which in some collections is the query itself.

    A positive that stands below the ranking scores less than all of it, so that with `margin` or
    `share` its query has no negative there: rank deeper.
    """
    near = _near_copies(texts.passages)
    copies = too_near = 0
    found: list[list[int]] = []
    names = texts.queries.ids
    own = texts.passages.positions(names)
    for query, name in enumerate(names):
        rows, scores = (part[query, : options.depth] for part in ranking)
        positives = texts.positives.of(query)
        is_wanted = (rows >= 0) & (rows != own[query]) & ~np.isin(rows, positives)
        is_far = scores <= _highest(rows, scores, positives, options)
        too_near += int((is_wanted & ~is_far).sum())
        candidates = rows[is_wanted & is_far]
        chosen, copied = _draw(candidates, positives, near, name, options)
        copies += copied
        found.append(candidates[np.isin(candidates, chosen)].tolist())
    return Mined(lists_of(found), copies, too_near)


def join(first: Lists, *others: Lists) -> Lists:
    """Returns for every query the passages of all lists, each once, in this order; no scores."""
    queries = range(len(first.offsets) - 1)
    joined = ([part.of(query) for part in (first, *others)] for query in queries)
    return lists_of([list(dict.fromkeys(np.concatenate(parts).tolist())) for parts in joined])


def _highest(
    rows: np.ndarray, scores: np.ndarray, positives: np.ndarray, options: MiningOptions
) -> float:
    """The score that a negative may have."""
    if options.margin is None and options.share is None:
        return np.inf
    of_positives = scores[np.isin(rows, positives)]
    if not len(of_positives):
        return -np.inf
    best = float(of_positives.max())
    highest = best if options.margin is None else best - options.margin
    if options.share is not None:  # of a negative score too: below it
        highest = min(highest, best - (1 - options.share) * abs(best))
    return highest


def _draw(
    candidates: np.ndarray,
    positives: np.ndarray,
    near: Callable[[int, int], bool],
    query: str,
    options: MiningOptions,
) -> tuple[list[int], int]:
    """Draws passages that are no near-copy of a positive, and counts the near-copies met. Only what
    is drawn is looked at: the comparison costs more than all the rest.
    """
    key = int.from_bytes(hashlib.blake2b(query.encode(), digest_size=8).digest(), "little")
    order = np.argsort(hash_u64(DRAW, options.seed, key, candidates), kind="stable")
    chosen: list[int] = []
    copies = 0
    for row in candidates[order].tolist():
        if len(chosen) == options.negatives:
            break
        if any(near(row, positive) for positive in positives.tolist()):
            copies += 1
        else:
            chosen.append(row)
    return chosen, copies


def _near_copies(passages: Texts) -> Callable[[int, int], bool]:
    """(row, row) -> whether one passage is a near-copy of the other."""

    @lru_cache(REMEMBERED)
    def grams(row: int) -> np.ndarray:
        return word_grams(passages[row].joined)

    def are_near(first: int, second: int) -> bool:
        short, long = sorted((grams(first), grams(second)), key=len)
        return bool(np.isin(short, long).mean() >= COPIED)

    return are_near


def word_grams(text: str) -> np.ndarray:
    """Returns sorted uint64: the distinct 8-grams of words of a text, as hashes of this process."""
    words = np.array([hash(word) for word in WORD.findall(text.casefold())], np.int64)
    if len(words) < GRAM:
        words = np.concatenate([words, np.zeros(GRAM - len(words), np.int64)])
    return np.unique(gram_hashes(words))
