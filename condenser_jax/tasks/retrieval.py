"""The task `retrieval`: how well models and BM25 find the passages that were judged relevant."""

from functools import partial

from condenser_jax.errors import UserError
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.metrics import BEST, RECALLS, evaluate, means
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.ranking import Measured, find_by_words, report_rankings


def report_retrieval(options: Options) -> Report:
    """MRR@10, nDCG@10, MAP and Recall, as trec_eval has them, of a collection's judged queries.

    Raises UserError for a collection without judgements.
    """
    return report_rankings(open_measured(options), options)


def measure_bm25(options: Options) -> dict[str, float]:
    """The figures of BM25 alone."""
    measured = open_measured(options)
    return means(measured.figures(find_by_words(measured, options)))


def open_measured(options: Options) -> Measured:
    """The collection, and what is to be measured on it; raises UserError as `report_retrieval`."""
    if options.k < 1:
        raise UserError(f"--k={options.k} asks for no passage; use 1 or more")
    collection = open_collection(options.data, options.split, options.reading)
    if not collection.qrels:
        raise UserError(
            f"{options.data} has no judgements of {options.split}; answers alone are for "
            "--task=open_qa"
        )
    recalls = [k for k in RECALLS if k <= options.k]
    figures = partial(evaluate, qrels=collection.qrels, recalls=recalls, best=min(BEST, options.k))
    what = f"{len(collection.queries):,} queries, {len(collection.corpus):,} passages"
    return Measured("retrieval", collection, options.k, list(collection.qrels), figures, what)
