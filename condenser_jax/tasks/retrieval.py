"""The task `retrieval`: how well models and BM25 find the passages that were judged relevant."""

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Run
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.metrics import RECALLS, evaluate
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.ranking import find, held, with_runs
from condenser_jax.tasks.systems import report_systems


def report_retrieval(options: Options) -> Report:
    """MRR@10, nDCG@10, MAP and Recall, as trec_eval has them, of a collection's judged queries.

    Raises UserError for a collection without judgements.
    """
    if options.k < 1:
        raise UserError(f"--k={options.k} asks for no passage; use 1 or more")
    collection = open_collection(options.data, options.split, options.reading)
    if not collection.qrels:
        raise UserError(
            f"{options.data} has no judgements of {options.split}; answers alone are for "
            "--task=open_qa"
        )
    recalls = [k for k in RECALLS if k <= options.k]
    systems, runs = {}, dict[str, Run]()
    for name, run in find(collection, options, options.k):
        systems[name] = evaluate(run, collection.qrels, recalls)
        runs |= {name: held(run)} if options.trec else {}
    what = f"{len(collection.queries):,} queries, {len(collection.corpus):,} passages"
    return with_runs(report_systems("retrieval", systems, options, what), runs)
