"""What vectors of spans are worth, against cases that have a closed form."""

import numpy as np
import pytest
from scipy.special import logsumexp

from condenser_jax.evaluation.span_retrieval import (
    FEWER,
    choose_pairs,
    ranks_of_partners,
    retrieval_figures,
)
from condenser_jax.evaluation.vector_geometry import (
    alignment,
    effective_rank,
    geometry_figures,
    uniformity,
)

RANDOM = np.random.default_rng(0).normal(size=(400, 24)).astype(np.float32)
BASIS = np.eye(8, dtype=np.float32)
ONE_POINT = np.full((9, 8), 0.1, np.float32)


def test_partners_that_are_equal_are_aligned_and_opposite_ones_are_4_apart():
    assert alignment(RANDOM, RANDOM) == 0
    assert alignment(RANDOM, -RANDOM) == pytest.approx(4)
    assert alignment(BASIS, np.roll(BASIS, 1, axis=0)) == pytest.approx(2)  # right angles


def test_only_the_direction_of_a_vector_counts_for_alignment_and_uniformity():
    lengths = np.linspace(0.5, 9, len(RANDOM))[:, None]
    assert alignment(RANDOM, RANDOM * lengths) == pytest.approx(0, abs=1e-12)
    assert uniformity(RANDOM * lengths) == pytest.approx(uniformity(RANDOM))
    assert alignment(RANDOM, RANDOM + lengths) > 0.1  # another direction does count


def test_one_point_is_not_uniform_and_right_angles_have_minus_four():
    assert uniformity(ONE_POINT) == pytest.approx(0, abs=1e-6)
    assert uniformity(BASIS) == pytest.approx(-4)  # every squared distance is 2


def test_two_directions_have_the_logarithm_of_the_mean_of_their_pairs():
    vectors = np.repeat(BASIS[:2], 2, axis=0)  # 2 of 6 pairs are equal, 4 at right angles
    assert uniformity(vectors) == pytest.approx(np.log((2 + 4 * np.exp(-4)) / 6))


def test_isotropic_vectors_are_nearly_as_uniform_as_right_angles_and_a_cone_is_not():
    assert -4.1 < uniformity(RANDOM) < -3.5
    assert uniformity(RANDOM + 5) > -1


def test_directions_that_are_used_alike_are_counted_by_the_effective_rank():
    both_ways = np.concatenate([BASIS, -BASIS])  # centred, with 8 equal singular values
    assert effective_rank(both_ways) == pytest.approx(8)
    assert effective_rank(both_ways[:, :3]) == pytest.approx(3)
    assert effective_rank(BASIS) == pytest.approx(7)  # one is lost to the centre
    assert 23 < effective_rank(RANDOM) < 24


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    lengths = np.array([4.0, 2.0, 1.0, 1.0])
    vectors = np.concatenate([np.diag(lengths), -np.diag(lengths)])
    shares = lengths / lengths.sum()
    assert effective_rank(vectors) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_collapsed_vectors_have_no_effective_rank():
    assert effective_rank(ONE_POINT) == 0
    assert effective_rank(ONE_POINT * (1 + 1e-7 * RANDOM[:9, :8])) == 0  # but for rounding
    line = np.linspace(-1, 1, 9)[:, None] * ONE_POINT
    assert effective_rank(line + 3) == pytest.approx(1)


def test_a_direction_that_all_vectors_share_does_not_count_for_the_effective_rank():
    assert effective_rank(RANDOM + 100) == pytest.approx(effective_rank(RANDOM), rel=1e-3)
    assert effective_rank(RANDOM * [100, *[1] * 23]) < 20  # a direction that differs does


def test_uniformity_compares_no_two_spans_of_one_document():
    figures = geometry_figures(BASIS, BASIS)
    assert figures["heldout/uniformity"] == pytest.approx(-4)
    assert uniformity(np.concatenate([BASIS, BASIS])) > -3


def test_partners_that_are_nearest_are_found_and_shuffled_ones_are_not():
    found = retrieval_figures(10 * BASIS, BASIS)
    assert found["heldout/span_retrieval@1"] == found["heldout/span_retrieval_mrr"] == 1
    lost = retrieval_figures(RANDOM, np.roll(RANDOM, 1, axis=0))
    assert lost["heldout/span_retrieval@1"] < 0.05
    assert lost["heldout/span_retrieval_mrr"] < 0.1


def test_a_tie_counts_against_the_partner():
    scores = np.array([[2.0, 2.0, 1.0], [0.0, 5.0, 1.0], [3.0, 3.0, 3.0]])
    assert ranks_of_partners(scores).tolist() == [2, 1, 3]
    figures = retrieval_figures(ONE_POINT, ONE_POINT)
    assert figures["heldout/span_retrieval@1"] == 0
    assert figures["heldout/span_retrieval_mrr"] == pytest.approx(1 / 9)


def test_the_contrastive_loss_is_the_paper_s_sum_over_all_other_spans():
    first, second = RANDOM[:6] / 4, RANDOM[6:12] / 4
    spans = np.concatenate([first, second]).astype(np.float64)
    scores = spans @ spans.T
    losses = []
    for i in range(12):
        others = [k for k in range(12) if k != i]
        losses.append(logsumexp(scores[i, others]) - scores[i, (i + 6) % 12])
    got = retrieval_figures(first, second)["heldout/contrastive_loss"]
    assert got == pytest.approx(np.mean(losses), rel=1e-5)
    chance = retrieval_figures(0 * first, 0 * second)["heldout/contrastive_loss"]
    assert chance == pytest.approx(np.log(11))


def test_a_pool_of_500_stands_beside_a_larger_one_and_is_easier():
    noise = np.random.default_rng(1).normal(size=(2, 900, 24)).astype(np.float32)
    first = np.random.default_rng(2).normal(size=(900, 24)).astype(np.float32)
    figures = retrieval_figures(first + noise[0], first + noise[1])
    smaller = f"heldout/span_retrieval@1_among_{FEWER}"
    assert figures["heldout/span_retrieval@1"] < figures[smaller] < 1
    assert smaller not in retrieval_figures(first[: FEWER - 1], first[: FEWER - 1])


def test_two_distinct_spans_are_drawn_of_documents_that_have_two():
    sizes = np.array([1, 2, 5, 0, 3, 1, 2])
    documents = np.concatenate([[0], np.cumsum(sizes)])
    pairs = choose_pairs(documents, 10, seed=0)
    owner = np.searchsorted(documents, pairs, side="right") - 1
    assert owner[:, 0].tolist() == owner[:, 1].tolist() == [1, 2, 4, 6]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert {tuple(pair) for pair in choose_pairs(documents, 2, seed=0)} < set(map(tuple, pairs))
