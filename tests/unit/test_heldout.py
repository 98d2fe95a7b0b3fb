"""Held-out figures are of the spans alone: not of batches, filling rows or the mesh."""

import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.feeds.corpus import Corpus, DataConfig
from condenser_jax.feeds.heldout import EvaluationConfig, draw_sample, heldout_evaluation
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives import mlm
from condenser_jax.objectives.base import Goal
from condenser_jax.training.sharding import make_mesh, parameter_shardings
from tests.helpers import random_params, tiny_backbone
from tests.memory_spans import MAX_LENGTH, SIZE, VOCABULARY, MemorySpans

DATA = DataConfig(max_length=MAX_LENGTH, mask_rate=0.3)
EVALUATION = EvaluationConfig(spans=20, documents=10, batch_size=8)
LOSS, RETRIEVAL = Goal("heldout/late_loss"), Goal("heldout/span_retrieval_mrr", False)
OBJECTIVE = mlm.build(
    tiny_backbone(vocab_size=SIZE, num_layers=2), ComputeConfig(), mlm.MlmConfig()
)
PARAMS = random_params(OBJECTIVE)


class HeldOut(MemorySpans):
    """Spans of documents, none of them known from training."""

    def __len__(self):
        return len(self.offsets) - 1

    @property
    def copied(self):
        return np.zeros(len(self), np.float32)


def corpus(*sizes):
    """Sources by the numbers of spans of their documents."""
    rng = np.random.default_rng(0)
    sources = []
    for first, spans in enumerate(sizes, start=1):
        heldout = HeldOut(rng.integers(3, 10, sum(spans)), 50 * first, list(spans))
        sources.append((SimpleNamespace(heldout=heldout, unigram=np.ones(SIZE, int)), 1.0))
    return Corpus(tuple(sources), None, VOCABULARY)


DOCUMENTS = corpus((3, 2, 2, 1, 2, 3, 2, 2))


def evaluate(mesh, config=EVALUATION, documents=DOCUMENTS, goal=LOSS, seed=0):
    run = heldout_evaluation(documents, OBJECTIVE, goal, mesh, DATA, config, seed)
    params = jax.tree.map(jax.device_put, PARAMS, parameter_shardings(PARAMS, mesh))
    return run(params, {})


@pytest.fixture(scope="module")
def figures():
    return evaluate(make_mesh(devices=jax.devices()[:1]))


def test_every_family_of_figures_is_there(figures):
    assert {
        "heldout/late_loss",
        "heldout/unigram",
        "heldout/span_retrieval@1",
        "heldout/span_retrieval_mrr",
        "heldout/contrastive_loss",
        "heldout/alignment",
        "heldout/uniformity",
        "heldout/effective_rank",
        "heldout/cls_entropy_layer_1",
        "heldout/cls_entropy_layer_2",
        "heldout/cls_entropy_uniform",
    } <= set(figures)
    assert np.isfinite(list(figures.values())).all()
    for layer in (1, 2):
        entropy = figures[f"heldout/cls_entropy_layer_{layer}"]
        assert 0 < entropy < figures["heldout/cls_entropy_uniform"]


def test_the_size_of_a_batch_and_its_filling_rows_change_no_figure(figures):
    changed = EvaluationConfig(spans=20, documents=10, batch_size=40)
    found = evaluate(make_mesh(devices=jax.devices()[:1]), changed)
    assert found == pytest.approx(figures, rel=1e-5)


def test_eight_devices_with_cut_weights_find_what_one_finds(figures):
    assert evaluate(make_mesh(2, 2, 2)) == pytest.approx(figures, rel=1e-5)


def test_the_log_says_how_many_documents_the_pool_really_has(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="condenser_jax"):
        heldout_evaluation(DOCUMENTS, OBJECTIVE, LOSS, make_mesh(), DATA, EVALUATION, 0)
    assert (
        "searched among 7 documents (evaluation.documents 10: no more are held out that have two"
        in caplog.text
    )


def test_sources_share_the_sample():
    sample = draw_sample(corpus((2,) * 9, (2,) * 9), DATA, EVALUATION, 0)
    assert sample.pairs == 10
    firsts = {int(batch["input_ids"][row, 1]) for batch in sample.sides[0] for row in range(5)}
    assert min(firsts) < 100 <= max(firsts)
    assert len(sample.copied) == sum(len(batch["input_ids"]) for batch in sample.masked)


def test_without_pairs_there_are_no_figures_of_vectors(figures):
    found = evaluate(make_mesh(devices=jax.devices()[:1]), documents=corpus((1,) * 6))
    assert found["heldout/late_loss"] != pytest.approx(figures["heldout/late_loss"], rel=1e-3)
    assert "heldout/cls_entropy_layer_1" in found
    assert not [name for name in found if "retrieval" in name or "rank" in name]


def test_a_method_that_is_judged_by_span_retrieval_needs_pairs():
    with pytest.raises(UserError, match=r"1 of the documents held out .* have two spans .* raise"):
        evaluate(make_mesh(), documents=corpus((1, 2, 1)), goal=RETRIEVAL)
