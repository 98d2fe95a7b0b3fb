"""Losses of dense retrieval against the formulas, written out query by query in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.losses.ranking import (
    ABSENT,
    distil_kl,
    distil_margin_mse,
    info_nce,
    is_candidate,
    own_scores,
)
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives import retriever
from condenser_jax.objectives.retriever import RetrieverConfig
from tests.helpers import tiny_backbone

PASSAGES = np.array([[1, 8], [2, 1], [3, 9], [2, 7]], np.int32)  # the positive of a query first
POSITIVES = np.array([[1, ABSENT], [2, ABSENT], [3, 8], [2, ABSENT]], np.int32)


def _scores() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def test_info_nce_is_the_formula():
    candidates = np.ones((4, 8), bool)
    nll, correct = info_nce(jnp.asarray(_scores()), candidates, group=2)
    for q, row in enumerate(_scores()):
        assert np.isclose(nll[q], -np.log(np.exp(row[2 * q]) / np.exp(row).sum()), rtol=1e-5)
        assert correct[q] == (row.argmax() == 2 * q)


def test_known_positives_elsewhere_in_the_batch_are_no_negatives():
    found = is_candidate(PASSAGES, POSITIVES, queries_together=4)
    # Query 0 leaves out its passage 1 in the group of query 1, query 1 passage 2 of query 3, query
    # 2 its other positive 8, query 3 passage 2 of query 1; each keeps its own positive.
    left_out = [[3], [6], [1], [2]]
    assert [np.flatnonzero(~row).tolist() for row in np.asarray(found)] == left_out
    assert is_candidate(PASSAGES, POSITIVES, 4, exclude_copies=False).all()


def test_negatives_may_be_shared_by_blocks_of_queries():
    found = is_candidate(PASSAGES, POSITIVES, queries_together=2, exclude_copies=False)
    assert np.array_equal(found, np.kron(np.eye(2), np.ones((2, 4))).astype(bool))


def test_excluded_scores_do_not_count():
    candidates = np.asarray(is_candidate(PASSAGES, POSITIVES, 4))
    nll, _ = info_nce(jnp.asarray(_scores()), candidates, 2)
    changed = np.where(candidates, _scores(), 99.0).astype(np.float32)
    np.testing.assert_array_equal(info_nce(jnp.asarray(changed), candidates, 2)[0], nll)
    assert not np.allclose(info_nce(jnp.asarray(changed), np.ones((4, 8), bool), 2)[0], nll)


def test_a_query_s_own_group_is_found():
    expected = [row[2 * q : 2 * q + 2] for q, row in enumerate(_scores())]
    np.testing.assert_array_equal(own_scores(jnp.asarray(_scores()), 2), expected)


def test_distillation_is_zero_where_teacher_and_student_agree_and_only_there():
    scores = _scores()
    for distil, shift in ((distil_kl, 5.0), (distil_margin_mse, 5.0)):
        np.testing.assert_allclose(distil(scores, scores + shift), 0, atol=1e-6)
        assert (np.asarray(distil(scores, scores[:, ::-1])) > 1e-2).all()


def test_distillation_is_the_formula():
    ours, theirs = _scores()[0], _scores()[1]
    p, q = (np.exp(x) / np.exp(x).sum() for x in (theirs, ours))
    kl = distil_kl(ours[None], theirs[None])[0]
    assert np.isclose(kl, (p * np.log(p / q)).sum(), rtol=1e-4)
    margins = ((ours[0] - ours[1:]) - (theirs[0] - theirs[1:])) ** 2
    assert np.isclose(distil_margin_mse(ours[None], theirs[None])[0], margins.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "clss"}, "unknown objective.pooling 'clss'; did you mean 'cls'?"),
        ({"distillation": "kld"}, "unknown objective.distillation 'kld'; did you mean 'kl'?"),
        ({"temperature": -1.0}, "objective.temperature is -1.0; expected above 0"),
        ({"negatives": "local"}, "objective.negatives is 'local'; expected 'global', or how many"),
        ({"contrast_weight": 0.0}, "nothing is learned; set objective.distillation to 'kl'"),
    ],
)
def test_choices_that_make_no_retriever_are_refused(options, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        retriever.build(tiny_backbone(), ComputeConfig(), RetrieverConfig(**options))
