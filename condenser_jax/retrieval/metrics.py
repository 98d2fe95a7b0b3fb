"""How good a ranking is: trec_eval's figures, by its maintained binding, for every query.

trec_eval ranks by score in float32 and then by document id, both falling (`trec.ranked`). A query
that is judged and has nothing in the run counts as 0; queries without a relevant document, and
those that nobody judged, do not count (`trec_eval -c`). Relevant is a grade of 1 or more; nDCG
takes the grades as gains.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pytrec_eval

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Qrels, Run
from condenser_jax.retrieval.trec import ranked

PerQuery = Mapping[str, Mapping[str, float]]  # metric -> query id -> value
RECALLS = (1, 10, 100, 1000)
BEST = 10  # passages that MRR and nDCG look at
AT_ONCE = 256  # queries


def evaluate(
    run: Run, qrels: Qrels, recalls: Sequence[int] = RECALLS, best: int = BEST
) -> dict[str, dict[str, float]]:
    """Returns {metric: {query id: value}}: MRR@10, nDCG@10, MAP and Recall at each of `recalls`;
    of a shorter ranking `best` says its length, so that a figure is named after what it saw.

    MRR@10 is trec_eval's recip_rank of the run's best ten. Raises UserError when no query has a
    relevant document, and for a score that is not a number.
    """
    relevant = {query: dict(grades) for query, grades in qrels.items() if _is_answered(grades)}
    if not relevant:
        raise UserError("no query of the judgements has a relevant document (a grade of 1 or more)")
    queries = list(relevant)
    found: dict[str, dict[str, float]] = {}
    for start in range(0, len(queries), AT_ONCE):
        block = {query: relevant[query] for query in queries[start : start + AT_ONCE]}
        for name, values in _evaluate_block(run, block, recalls, best).items():
            found.setdefault(name, {}).update(values)
    return found


def _evaluate_block(
    run: Run, relevant: Mapping[str, Mapping[str, int]], recalls: Sequence[int], best: int
) -> dict[str, dict[str, float]]:
    """The same of some queries: of a run that makes its lines when asked, these alone are held."""
    scores = {query: _scores(query, run[query]) for query in relevant if run.get(query)}
    first = {q: {name: found[name] for name in ranked(found, best)} for q, found in scores.items()}
    wanted = {f"ndcg_cut.{best}", "map", "recall." + ",".join(map(str, recalls))}
    whole = pytrec_eval.RelevanceEvaluator(relevant, wanted).evaluate(scores)
    cut = pytrec_eval.RelevanceEvaluator(relevant, {"recip_rank"}).evaluate(first)
    names = {f"nDCG@{best}": f"ndcg_cut_{best}", "MAP": "map"}
    names |= {f"Recall@{k}": f"recall_{k}" for k in recalls}
    per_query = {f"MRR@{best}": {q: cut[q]["recip_rank"] if q in cut else 0.0 for q in relevant}}
    for name, theirs in names.items():
        per_query[name] = {q: whole[q][theirs] if q in whole else 0.0 for q in relevant}
    return per_query


def means(per_query: PerQuery) -> dict[str, float]:
    """Returns the mean of every metric over its queries."""
    return {name: float(np.mean(list(values.values()))) for name, values in per_query.items()}


def _is_answered(grades: Mapping[str, int]) -> bool:
    return any(grade > 0 for grade in grades.values())


def _scores(query: str, found: Mapping[str, float]) -> dict[str, float]:
    scores = {name: float(score) for name, score in found.items()}
    if not np.isfinite(list(scores.values())).all():
        raise UserError(f"the run has a score for query {query!r} that is not a finite number")
    return scores


def pearson(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """Returns the linear correlation of two vectors [n]; 0 when one of them is constant."""
    from scipy import stats

    return 0.0 if _is_constant(left, right) else float(stats.pearsonr(left, right).statistic)


def spearman(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """Returns the correlation of the ranks of two vectors [n], equal values sharing their mean
    rank; 0 when one vector is constant.
    """
    from scipy import stats

    return 0.0 if _is_constant(left, right) else float(stats.spearmanr(left, right).statistic)


def correlation_shares(
    left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns {"Spearman" and "Pearson": {number of the pair, from 1: its share}}.

    A share is the product of two standard scores (of ranks, of values); the mean of all shares is
    the correlation, so correlations are kept, averaged and compared like any other figure.
    """
    from scipy import stats

    constant = _is_constant(left, right)

    def shares(*columns: np.ndarray) -> dict[str, float]:
        products = np.zeros(len(left)) if constant else np.prod(list(map(stats.zscore, columns)), 0)
        return {str(number): share for number, share in enumerate(products.tolist(), start=1)}

    ranks = shares(stats.rankdata(left), stats.rankdata(right))
    return {"Spearman": ranks, "Pearson": shares(np.asarray(left), np.asarray(right))}


def _is_constant(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> bool:
    if len(left) != len(right) or len(left) < 2:
        raise UserError(
            f"a correlation needs two vectors of one length, at least 2; got {len(left)} and "
            f"{len(right)}"
        )
    return bool(np.ptp(left) == 0 or np.ptp(right) == 0)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosines float64 [n] of vectors [n, D]; 0 where one of them is 0."""
    wide, other = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    return (wide * other).sum(1) / np.maximum(lengths, 1e-12)


def triplet_hits(anchors: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns bool [n]: whether each anchor [n, D] is nearer, by Euclid, to its positive than to
    its negative. Their mean is the section accuracy (Ein Dor et al. 2018); a tie is a miss.
    """
    to_positive = np.linalg.norm(anchors.astype(np.float64) - positives, axis=1)
    to_negative = np.linalg.norm(anchors.astype(np.float64) - negatives, axis=1)
    return to_positive < to_negative
