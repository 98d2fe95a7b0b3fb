"""The contrast of spans against the paper's formula, written out span by span in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.losses.contrastive import FILLER, span_contrast
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives import cocondenser
from condenser_jax.objectives.cocondenser import CoCondenserConfig
from tests.helpers import tiny_backbone

DOCUMENTS = np.array([4, 4, 7, 7, 2, 2, 7, 7], np.int32)  # document 7 was drawn twice


def _vectors(rows: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 5)).astype(np.float32)


def _formula(vectors, documents, similarity=np.dot, temperature=1.0) -> list[float]:
    """-log exp<h_i1, h_i2> / sum over the other spans; those of the same document left out."""
    losses = []
    for i, (h, document) in enumerate(zip(vectors, documents, strict=True)):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = [k for k, other in enumerate(documents) if other not in (document, FILLER)]
        terms = {k: np.exp(similarity(h, vectors[k]) / temperature) for k in [partner, *others]}
        losses.append(-np.log(terms[partner] / sum(terms.values())))
    return losses


def _cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_it_is_the_formula():
    nll, _ = span_contrast(jnp.asarray(_vectors()), DOCUMENTS)
    np.testing.assert_allclose(nll, _formula(_vectors(), DOCUMENTS), rtol=2e-6)


def test_cosine_and_temperature_are_the_formula_with_them():
    nll, _ = span_contrast(jnp.asarray(_vectors()), DOCUMENTS, "cosine", 0.05)
    np.testing.assert_allclose(
        nll, _formula(_vectors(), DOCUMENTS, _cosine, 0.05), rtol=1e-5, atol=1e-6
    )
    plain, _ = span_contrast(jnp.asarray(_vectors()), DOCUMENTS)
    assert not np.allclose(nll, plain, rtol=0.1)


def test_a_second_visit_of_a_document_is_no_negative():
    once = np.array([4, 4, 7, 7, 2, 2, 9, 9], np.int32)
    nll, _ = span_contrast(jnp.asarray(_vectors()), DOCUMENTS)
    as_negatives, _ = span_contrast(jnp.asarray(_vectors()), once)
    changed = ~np.isclose(nll, as_negatives, rtol=1e-4)
    assert changed.tolist() == [False, False, True, True, False, False, True, True]


def test_equal_vectors_give_the_logarithm_of_the_candidates():
    nll, correct = span_contrast(jnp.ones((6, 3)), np.array([0, 0, 1, 1, 2, 2], np.int32))
    np.testing.assert_allclose(nll, np.log(5), rtol=1e-6)  # 1 positive and 2n - 2 = 4 negatives
    assert correct.tolist() == [0] * 6  # a tie is not found


def test_a_filler_row_is_nobody_s_negative():
    vectors = _vectors(10)
    filled = np.append(DOCUMENTS, [FILLER, FILLER]).astype(np.int32)
    nll, correct = span_contrast(jnp.asarray(vectors), filled)
    alone, found = span_contrast(jnp.asarray(vectors[:8]), DOCUMENTS)
    np.testing.assert_allclose(nll[:8], alone, rtol=1e-6)
    assert correct[:8].tolist() == found.tolist() and np.isfinite(nll).all()


def test_a_partner_is_found_where_it_is_nearest():
    vectors = np.repeat(10 * np.eye(4, dtype=np.float32), 2, axis=0)
    _, correct = span_contrast(jnp.asarray(vectors), np.repeat(np.arange(4), 2))
    assert correct.tolist() == [1] * 8
    _, correct = span_contrast(jnp.asarray(np.roll(vectors, 1, axis=0)), np.repeat(np.arange(4), 2))
    assert correct.tolist() == [0] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "cosin"}, "unknown objective.similarity 'cosin'; did you mean 'cosine'?"),
        ({"temperature": 0.0}, r"objective.temperature is 0.0; expected above 0 \(1 as published"),
    ],
)
def test_a_contrast_that_does_not_exist_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        cocondenser.build(tiny_backbone(), ComputeConfig(), CoCondenserConfig(**options))
