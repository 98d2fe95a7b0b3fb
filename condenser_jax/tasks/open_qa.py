"""The task `open_qa`: whether one of the best passages holds an answer to the question."""

from functools import partial

from condenser_jax.errors import UserError
from condenser_jax.retrieval.answers import ACCURACIES, top_k_accuracy
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.ranking import Measured, report_rankings


def report_open_qa(options: Options) -> Report:
    """Accuracy among the best 5, 20 and 100 passages (Karpukhin et al. 2020), of every question
    that has answers, and in a BEIR folder a relevant passage. Raises UserError for a collection
    without any.
    """
    collection = open_collection(options.data, options.split, options.reading)
    if not collection.answers:
        raise UserError(
            f"{options.data} has no answers for {options.split}; expected answers.jsonl in a BEIR "
            "folder, or a DPR folder"
        )
    figures = partial(top_k_accuracy, answers=collection.answers, corpus=collection.corpus)
    what = f"{len(collection.answers):,} questions, {len(collection.corpus):,} passages"
    asked, depth = list(collection.answers), max(ACCURACIES)
    measured = Measured("open_qa", collection, depth, asked, figures, what)
    return report_rankings(measured, options)
