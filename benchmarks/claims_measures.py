"""What benchmarks/claims.py measures: the figures of every test query, and which learning rate an
arm is compared at.
"""

import functools
from collections.abc import Callable

from condenser_jax.encoder import Encoder
from condenser_jax.errors import UserError
from condenser_jax.retrieval.bm25 import Bm25
from condenser_jax.retrieval.collection import Collection, CollectionOptions, Run
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.metrics import PerQuery, evaluate
from condenser_jax.retrieval.own_passages import depth_for, without_own

DEPTH = 100
HELDOUT = 0.2  # of the modules are test, as many dev: over 2000 test queries
SPLITS = ("train", "dev", "test")
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)  # of fine-tuning
FIRST_RATE, CHECKPOINT_FIRST = 3e-4, 1e-4  # where the choice begins


@functools.cache
def opened(where: str, split: str = "test") -> Collection:
    """A split of the collection, that of the run's seed 0, whatever the seed of a cell."""
    return open_collection(where, split, CollectionOptions(0.01, HELDOUT, split_seed=0))


def check_collection(where: str) -> None:
    """Raises UserError, before anything is trained, for a collection that is missing or judges no
    query of a split: `train` teaches, `dev` chooses and `test` is asked.
    """
    for split in SPLITS:
        if not opened(where, split).qrels:
            raise UserError(
                f"--collection={where} has no judgements of {split}; expected those of "
                f"{', '.join(SPLITS)}"
            )


def search(encoder: Encoder, collection: Collection) -> PerQuery:
    """The figures of every test query."""
    asked, passages = (
        [text.joined for text in texts] for texts in (collection.queries, collection.corpus)
    )
    hits = encoder.search(asked, passages, depth_for(collection.own, DEPTH))
    ids = collection.corpus.ids
    run = {
        query: {ids[row]: float(score) for row, score in zip(rows, scores, strict=True)}
        for query, rows, scores in zip(collection.queries.ids, *hits, strict=True)
    }
    return _figures(run, collection)


def bm25(collection: Collection) -> PerQuery:
    """BM25's figures of every test query."""
    depth = depth_for(collection.own, DEPTH)
    return _figures(Bm25(collection.corpus).search(collection.queries, depth), collection)


def _figures(run: Run, collection: Collection) -> PerQuery:
    counted = without_own(run, collection.own, DEPTH)
    return evaluate(counted, collection.qrels, recalls=(DEPTH,))


def best_rate(score: Callable[[float], float], first: float = FIRST_RATE) -> float:
    """Climbs from `first` to a rate of RATES whose neighbours score no better."""
    best = RATES.index(first)
    scores: dict[int, float] = {}
    while True:
        for number in range(max(best - 1, 0), min(best + 2, len(RATES))):
            if number not in scores:
                scores[number] = score(RATES[number])
        if scores[best] == max(scores.values()):
            return RATES[best]
        best = max(scores, key=scores.__getitem__)
