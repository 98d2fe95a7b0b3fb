"""A retriever is measured over any mesh as on one device, within the mesh."""

import functools

import jax
import numpy as np
import pytest

from condenser_jax.axes import divided_by_rows
from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.evaluation.passage_retrieval import Sample, passage_retrieval_evaluator
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives import retriever
from condenser_jax.retrieval.texts import Text, Texts
from condenser_jax.training.sharding import batch_sharding, make_mesh, parameter_shardings
from tests.helpers import tiny_backbone

RNG = np.random.default_rng(0)
ROWS, LENGTH = 64, 24
OBJECTIVE = retriever.build(
    tiny_backbone(num_layers=2), ComputeConfig(scan_layers=True), retriever.RetrieverConfig()
)
PARAMS = OBJECTIVE.init(jax.random.key(0), {})
PASSAGES = RNG.integers(5, 90, (ROWS, LENGTH)).astype(np.int32)
QUERIES = np.where(RNG.random((ROWS, LENGTH)) < 0.5, PASSAGES, 5).astype(np.int32)
SAMPLE = Sample(
    Texts.of(Text(f"q{n}", f"word{n}") for n in range(60)),
    Texts.of(Text(f"p{n}", f"word{n}") for n in range(60)),
    {f"q{n}": {f"p{n}": 1} for n in range(60)},
)


def rows(ids):
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def placed(mesh):
    return jax.tree.map(jax.device_put, PARAMS, parameter_shardings(PARAMS, mesh))


def measured(mesh):
    """Figures of the evaluation, and the vectors that it is made of."""
    evaluate = passage_retrieval_evaluator(
        OBJECTIVE.predict, SAMPLE, [rows(QUERIES)], [rows(PASSAGES)], mesh
    )
    embed = over_mesh(OBJECTIVE.predict["embed"], mesh)
    return evaluate(placed(mesh), {}), np.asarray(
        embed(placed(mesh), {}, place(rows(PASSAGES), mesh))
    )


@functools.cache
def on_one_device():
    return measured(make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize("axes", [(1, 8, 1), (4, 2, 1)], ids=["fsdp 8", "data 4, fsdp 2"])
def test_figures_and_vectors_are_those_of_one_device(axes):
    figures, vectors = measured(make_mesh(*axes))
    expected, ours = on_one_device()
    assert 0.05 < expected["heldout/mrr@10"] < 1
    np.testing.assert_allclose(vectors, ours, atol=2e-6)
    assert figures == pytest.approx(expected, abs=1e-6)


def test_an_evaluation_is_computed_within_the_mesh_as_a_step_is():
    """So that rows are held where they are (test_axes.py)."""
    mesh, seen = make_mesh(1, 8, 1), []

    def look(ids):
        seen.append(str(jax.make_jaxpr(divided_by_rows)(ids)))
        return ids

    found = over_mesh(look, mesh)(jax.device_put(PASSAGES, batch_sharding(mesh)))
    assert found.sharding.is_fully_replicated
    assert len(seen) == 1 and "spec=P('fsdp', UNCONSTRAINED)" in seen[0]
