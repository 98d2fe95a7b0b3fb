"""Figures equal trec_eval's, which are checked by hand and against a plain computation."""

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval import metrics

# Ranked d2, d3, d1, d5: d3 and d1 tie, and the higher id comes first.
RUN = {"q1": {"d1": 0.8, "d2": 0.9, "d3": 0.8, "d5": 0.1}, "unjudged": {"d1": 1.0}}
QRELS = {"q1": {"d1": 2, "d3": 1, "d4": 0}, "q2": {"d2": 1}, "nothing relevant": {"d1": 0}}


def test_the_figures_of_five_passages_are_those_done_by_hand():
    found = metrics.evaluate(RUN, QRELS, recalls=(1, 2, 10))
    log2 = np.log2
    by_hand = {
        "MRR@10": 1 / 2,
        "nDCG@10": (1 / log2(3) + 2 / log2(4)) / (2 + 1 / log2(3)),
        "MAP": (1 / 2 + 2 / 3) / 2,
        "Recall@1": 0.0,
        "Recall@2": 0.5,
        "Recall@10": 1.0,
    }
    assert {name: values["q1"] for name, values in found.items()} == pytest.approx(by_hand)
    assert all(values["q2"] == 0 for values in found.values())  # judged, but not in the run
    assert all(set(values) == {"q1", "q2"} for values in found.values())
    assert metrics.means(found) == pytest.approx({name: v / 2 for name, v in by_hand.items()})


def plain(scores, grades, recalls):
    """The same figures from their definitions."""
    order = sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)
    gains = np.array([max(0, grades.get(name, 0)) for name in order], float)
    ideal = np.sort([max(0, grade) for grade in grades.values()])[::-1][:10]
    hits, total = gains > 0, sum(grade > 0 for grade in grades.values())
    places = np.arange(1, len(order) + 1)
    discounts = np.log2(1 + np.arange(1, 11))
    first = np.flatnonzero(hits[:10])
    figures = {
        "MRR@10": 1 / (1 + first[0]) if len(first) else 0.0,
        "nDCG@10": (gains[:10] / discounts[: len(gains[:10])]).sum()
        / (ideal / discounts[: len(ideal)]).sum(),
        "MAP": (np.cumsum(hits) / places)[hits].sum() / total,
    }
    return figures | {f"Recall@{k}": hits[:k].sum() / total for k in recalls}


def test_trec_eval_equals_the_plain_computation_on_random_runs(monkeypatch):
    generator = np.random.default_rng(3)
    names = [f"d{i}" for i in range(40)]
    qrels = {
        f"q{q}": {n: int(generator.integers(0, 4)) for n in generator.choice(names, 8, False)}
        | {"d0": 1}
        for q in range(50)
    }
    run = {
        query: {n: float(generator.integers(0, 12) / 7) for n in generator.choice(names, 25, False)}
        for query in qrels
    }
    monkeypatch.setattr(metrics, "AT_ONCE", 7)
    found = metrics.evaluate(run, qrels, (1, 5, 20))
    assert all(list(values) == list(qrels) for values in found.values())
    for query in qrels:
        expected = plain(run[query], qrels[query], (1, 5, 20))
        assert {name: v[query] for name, v in found.items()} == pytest.approx(expected, abs=1e-6)


def test_the_order_of_ties_matters():
    untied = {"q1": RUN["q1"] | {"d1": 0.81}}  # d1 before d3
    found, other = metrics.evaluate(RUN, QRELS), metrics.evaluate(untied, QRELS)
    assert found["nDCG@10"]["q1"] < other["nDCG@10"]["q1"]


def test_a_relevant_passage_on_rank_eleven_counts_for_recall_alone():
    run = {"q": {f"d{i:02}": -float(i) for i in range(20)}}
    found = metrics.means(metrics.evaluate(run, {"q": {"d10": 1}}, (10, 11)))
    assert found["MRR@10"] == found["nDCG@10"] == found["Recall@10"] == 0
    assert found["Recall@11"] == 1 and found["MAP"] == pytest.approx(1 / 11)


def test_figures_of_a_short_ranking_are_named_after_its_length():
    run = {"q": {"d3": 3.0, "d1": 2.0, "d2": 1.0}}
    found = metrics.evaluate(run, {"q": {"d1": 1, "d2": 1}}, (1,), best=2)
    assert list(found) == ["MRR@2", "nDCG@2", "MAP", "Recall@1"]
    log2 = np.log2
    by_hand = {"MRR@2": 1 / 2, "nDCG@2": (1 / log2(3)) / (1 + 1 / log2(3))}
    assert {name: found[name]["q"] for name in by_hand} == pytest.approx(by_hand)


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(UserError, match="no query of the judgements has a relevant document"):
        metrics.evaluate(RUN, {"q1": {"d1": 0}})
    with pytest.raises(UserError, match="a score for query 'q1' that is not a finite number"):
        metrics.evaluate({"q1": {"d1": float("nan")}}, QRELS)


def test_correlations_are_those_done_by_hand():
    assert metrics.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert metrics.pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert metrics.spearman([1, 2, 3], [1, 10, 5]) == pytest.approx(0.5)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert metrics.spearman([0, 7, 7, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_a_constant_vector_correlates_with_nothing():
    assert metrics.spearman([1, 1, 1], [1, 2, 3]) == metrics.pearson([1, 2], [5, 5]) == 0
    with pytest.raises(UserError, match="two vectors of one length, at least 2; got 1 and 1"):
        metrics.pearson([1], [1])


def test_shares_of_a_correlation_have_it_as_their_mean():
    generator = np.random.default_rng(5)
    scores = generator.integers(0, 6, 60) / 1.2  # with ties
    found = scores + generator.normal(0, 2, 60)
    shares = metrics.correlation_shares(found, scores)
    assert list(shares["Spearman"]) == [str(number) for number in range(1, 61)]
    assert metrics.means(shares) == pytest.approx(
        {"Spearman": metrics.spearman(found, scores), "Pearson": metrics.pearson(found, scores)}
    )
    nothing = metrics.correlation_shares(np.ones(3), np.arange(3))
    assert metrics.means(nothing) == {"Spearman": 0, "Pearson": 0}


def test_cosines_are_those_of_the_formula_and_0_of_a_vector_of_0():
    first, second = np.array([[3.0, 4], [1, 0], [0, 0]]), np.array([[4.0, 3], [-2, 0], [1, 1]])
    assert metrics.cosines(first, second).tolist() == pytest.approx([0.96, -1, 0])


def test_a_triplet_counts_when_the_anchor_is_nearer_to_its_positive():
    anchors = np.zeros((3, 2), np.float32)
    positives = np.array([[1, 0], [3, 4], [0, 2]], np.float32)
    negatives = np.array([[0, 2], [3, 3], [2, 0]], np.float32)
    assert metrics.triplet_hits(anchors, positives, negatives).tolist() == [True, False, False]
