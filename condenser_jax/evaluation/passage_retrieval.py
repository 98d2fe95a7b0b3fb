"""How well a retriever searches, while it is trained: queries against a sample of the corpus, over
the whole mesh.

The sample holds every relevant passage of its queries and others drawn by hash, so figures are
higher than among the whole corpus, and comparable within a run. BM25 on the same sample stands
beside them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from condenser_jax.data.hashing import hash_u64
from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.retrieval.bm25 import Bm25
from condenser_jax.retrieval.collection import Collection, Qrels, Run
from condenser_jax.retrieval.metrics import evaluate, means
from condenser_jax.retrieval.own_passages import depth_for, without_own
from condenser_jax.retrieval.texts import Texts
from condenser_jax.types import Frozen, Params

QUERY, PASSAGE = 33, 34  # what a hash is drawn for
DEPTH = 100  # of a ranking
NAMES = {"MRR@10": "mrr@10", "nDCG@10": "ndcg@10", "Recall@100": "recall@100"}


class Sample(NamedTuple):
    """Queries, and the passages among which their relevant ones are searched."""

    queries: Texts
    passages: Texts
    qrels: Qrels
    own: frozenset[str] = frozenset()  # as of a collection

    def figures(self, run: Run) -> dict[str, float]:
        """Of the best DEPTH passages of each query."""
        counted = without_own(run, self.own, DEPTH)
        found = means(evaluate(counted, self.qrels, recalls=(DEPTH,)))
        return {f"heldout/{ours}": found[name] for name, ours in NAMES.items()}


def draw_sample(collection: Collection, queries: int, passages: int, seed: int) -> Sample:
    """At most `queries` judged queries, and their relevant passages with others up to `passages`
    (at least all relevant ones); a function of the seed.
    """
    judged = [
        name for name in collection.queries.ids if any(collection.qrels.get(name, {}).values())
    ]
    chosen = [judged[number] for number in _first(len(judged), queries, QUERY, seed)]
    qrels = {name: collection.qrels[name] for name in chosen}
    ids = collection.corpus.ids
    known = {passage for grades in qrels.values() for passage in grades}
    order = _first(len(ids), len(ids), PASSAGE, seed)
    others = [ids[number] for number in order if ids[number] not in known]
    wanted = sorted(known) + others[: max(0, passages - len(known))]
    return Sample(
        collection.queries.only(chosen), collection.corpus.only(wanted), qrels, collection.own
    )


def _first(total: int, limit: int, purpose: int, seed: int) -> np.ndarray:
    """Numbers below `total` in an order drawn by hash, at most `limit`."""
    return np.argsort(hash_u64(purpose, seed, np.arange(total)), kind="stable")[:limit]


def passage_retrieval_evaluator(
    predict: Mapping[str, Callable],
    sample: Sample,
    queries: Sequence[Mapping[str, np.ndarray]],
    passages: Sequence[Mapping[str, np.ndarray]],
    mesh: Mesh,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      predict: "embed_query" and "embed": (params, frozen, batch) -> vectors [B, D].
      sample: the texts, in the order of the batches.
      queries, passages: their rows; rows beyond the texts only fill up the last batch.

    Returns:
      (params, frozen) -> heldout/mrr@10, ndcg@10, recall@100, and bm25_mrr@10 beside it.
    """
    placed = {
        "embed_query": [place(batch, mesh) for batch in queries],
        "embed": [place(batch, mesh) for batch in passages],
    }
    compiled = {name: over_mesh(predict[name], mesh) for name in placed}

    depth = depth_for(sample.own, DEPTH)

    @functools.cache
    def bm25() -> dict[str, float]:
        run = Bm25(sample.passages).search(sample.queries, depth)
        return {"heldout/bm25_mrr@10": sample.figures(run)["heldout/mrr@10"]}

    def vectors(name: str, total: int, params: Params, frozen: Frozen) -> np.ndarray:
        found = [np.asarray(compiled[name](params, frozen, batch)) for batch in placed[name]]
        return np.concatenate(found)[:total].astype(np.float32)

    def run_evaluation(params: Params, frozen: Frozen) -> dict[str, float]:
        asked = vectors("embed_query", len(sample.queries), params, frozen)
        known = vectors("embed", len(sample.passages), params, frozen)
        run = _best(asked @ known.T, sample.queries.ids, sample.passages.ids, depth)
        return sample.figures(run) | bm25()

    return run_evaluation


def _best(scores: np.ndarray, queries: Sequence[str], passages: Sequence[str], depth: int) -> Run:
    """The run of scores [Q, P], cut to a depth."""
    depth = min(depth, scores.shape[1])
    columns = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    return {
        query: {passages[column]: float(row[column]) for column in best}
        for query, row, best in zip(queries, scores, columns, strict=True)
    }
