"""Losses of pairs and triplets against the formulas, and rows that do not see each other."""

import jax
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.losses.chunks import split_rows
from condenser_jax.losses.siamese import cosine, distance, triplet
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import sections, similarity
from condenser_jax.objectives.sections import SectionsConfig
from condenser_jax.objectives.similarity import SimilarityConfig
from tests.helpers import (
    assert_close,
    compile_quickly,
    random_params,
    tiny_backbone,
    worst_difference,
)
from tests.text_batches import rows_batch

BACKBONE = tiny_backbone(num_layers=1)
ROWS, LENGTH = 4, 7
A, B, C = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)


def test_cosine_and_distance_are_the_formulas():
    lengths = np.linalg.norm(A, axis=1) * np.linalg.norm(B, axis=1)
    np.testing.assert_allclose(cosine(A, B), (A * B).sum(1) / lengths, atol=1e-6)
    np.testing.assert_allclose(distance(A, B), np.linalg.norm(A - B, axis=1), atol=1e-5)


def test_a_triplet_costs_what_the_positive_is_too_far():
    losses, nearer = triplet(A, B, C, 1.0)
    to_b, to_c = (np.linalg.norm(A - other, axis=1) for other in (B, C))
    np.testing.assert_allclose(losses, np.maximum(0, to_b - to_c + 1), atol=1e-4)
    assert nearer.tolist() == (to_b < to_c).astype(float).tolist()
    assert triplet(A, A, 100 * B, 1.0)[0].tolist() == [0] * 5


def test_equal_texts_have_a_gradient():
    for loss in (lambda a: distance(a, a).sum(), lambda a: cosine(a, A).sum()):
        assert np.isfinite(jax.grad(loss)(A)).all()


def test_parts_of_a_batch_add_up_to_its_gradient_with_dropout_on():
    compute = ComputeConfig(dtype="float64")
    with jax.enable_x64(True):
        objective = similarity.build(BACKBONE, compute, SimilarityConfig())
        params = random_params(objective, "float64")
        batch = rows_batch(BACKBONE, 2) | {"row": np.arange(ROWS, dtype=np.int32)}

        def loss(params, part, step):
            dropout = Dropout(np.array([7, 3], np.uint32) + step, part["row"])
            counts = {"rows": np.float64(ROWS)}
            return objective.losses(params, {}, part, counts, dropout)["train"].value

        def gradients(part, step=0):
            arguments = (params, part, np.uint32(step))
            return jax.device_get(run[len(part["row"])](*arguments))

        parts = [jax.tree.map(lambda leaf, i=i: leaf[i], split_rows(batch, 2)) for i in range(2)]
        run = {
            len(one["row"]): compile_quickly(jax.value_and_grad(loss), params, one, np.uint32(0))
            for one in (batch, parts[0])
        }
        whole = gradients(batch)
        assert_close(jax.tree.map(np.add, *map(gradients, parts)), whole, 1e-9)
        assert worst_difference(gradients(batch, step=1), whole)[0] > 1e-3  # other dropout


def test_sections_say_how_many_positives_are_nearer():
    objective = sections.build(BACKBONE, ComputeConfig(), SectionsConfig(pooling="mean"))
    params, batch = random_params(objective), rows_batch(BACKBONE, 3)

    def found(params, batch):
        losses = objective.losses(params, {}, batch, objective.counts(batch), None)["train"]
        flat = {name: batch[name].reshape(-1, LENGTH) for name in ("input_ids", "attention_mask")}
        return losses, objective.predict["embed"](params, {}, flat)

    loss, vectors = jax.device_get(compile_quickly(found, params, batch)(params, batch))
    anchor, near, far = np.moveaxis(vectors.reshape(ROWS, 3, -1), 1, 0)
    margins = np.linalg.norm(anchor - near, axis=1) - np.linalg.norm(anchor - far, axis=1)
    assert loss.metrics["accuracy"].total == (margins < 0).sum() and loss.value > 0
    np.testing.assert_allclose(loss.value, np.maximum(0, margins + 5).mean(), rtol=1e-4)


def test_choices_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="objective.margin is 0.0; expected above 0"):
        SectionsConfig(margin=0.0)
    with pytest.raises(UserError, match="unknown objective.pooling 'max'; known: cls, mean"):
        SimilarityConfig(pooling="max")
