"""Losses on text vectors, and their gradients by every weight, equal those of
sentence-transformers: ranking (also cached), regression of cosines, triplets.

Reference: its losses on a tiny BERT in torch, float64, no dropout, padded rows. Tolerance 1e-9 of
each tensor's largest element. Negative controls: another scale, copies that are no negatives,
another pooling, another margin.
"""

import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
pytest.importorskip("sentence_transformers", reason="its losses are the reference")

from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.objectives import retriever, sections, similarity  # noqa: E402
from condenser_jax.objectives.retriever import RetrieverConfig  # noqa: E402
from condenser_jax.objectives.sections import SectionsConfig  # noqa: E402
from condenser_jax.objectives.similarity import SimilarityConfig  # noqa: E402
from tests.encoders import export_tiny  # noqa: E402
from tests.helpers import assert_close, compile_quickly  # noqa: E402
from tests.hf_models import random_params, tiny_config  # noqa: E402
from tests.parity.torch_reference import as_theirs  # noqa: E402
from tests.text_batches import ranking_batch, rows_batch  # noqa: E402

TOLERANCE = 1e-9
CONFIG = dataclasses.replace(tiny_config("bert"), hidden_dropout=0.0, attention_dropout=0.0)
COSINES = RetrieverConfig(normalise=True, temperature=1 / 20, exclude_copies=False)
DOTS = RetrieverConfig(pooling="mean", exclude_copies=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {pooling: load(pooling, tmp_path_factory.mktemp(pooling)) for pooling in ("cls", "mean")}


def load(pooling, folder):
    """Their model with our random weights."""
    from sentence_transformers import SentenceTransformer

    directory = export_tiny(folder, pooling=pooling)
    return SentenceTransformer(str(directory), device="cpu").double().eval()


def losses_of_theirs():
    from sentence_transformers.sentence_transformer import losses

    return losses


def loss_of(build, options, chunk_rows=0):
    """(params, batch) -> our loss, and the parameters."""
    objective = build(CONFIG, ComputeConfig(dtype="float64", chunk_rows=chunk_rows), options)
    backbone = random_params(CONFIG)["backbone"]
    params = {"backbone": jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), backbone)}

    def loss(params, batch):
        counts = objective.counts(batch)
        return objective.losses(params, {}, batch, counts, None)["train"].value

    return loss, params


def ours(build, options, batch, chunk_rows=0):
    """{"loss" or their name: value or gradient} of our objective."""
    with jax.enable_x64(True):
        loss, params = loss_of(build, options, chunk_rows)
        run = compile_quickly(jax.value_and_grad(loss), params, batch)
        value, gradients = jax.device_get(run(params, batch))
    named = as_theirs(CONFIG, gradients)
    return {"loss": value} | {name.removeprefix("bert."): g for name, g in named.items()}


def our_loss(build, options, batch):
    with jax.enable_x64(True):
        loss, params = loss_of(build, options)
        return float(compile_quickly(loss, params, batch)(params, batch))


def theirs(model, loss, columns, labels=None):
    """The same of their loss, on columns of ids and masks [B, L]."""
    features = [
        {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
        for ids, mask in columns
    ]
    model.zero_grad()
    value = loss(features, None if labels is None else torch.tensor(labels))
    value.backward()
    parameters = model[0].auto_model.named_parameters()
    gradients = {n: p.grad.numpy().copy() for n, p in parameters if p.grad is not None}
    return {"loss": value.item()} | gradients


@pytest.mark.parametrize(
    ("options", "chunk_rows"),
    [(COSINES, 0), (COSINES, 2), (DOTS, 0)],
    ids=["cosine", "cosine, cached", "dot, mean"],
)
def test_ranking_equals_multiple_negatives_ranking(models, options, chunk_rows):
    from sentence_transformers import util

    kinds, model = losses_of_theirs(), models[options.pooling]
    how = {"scale": 1 / options.temperature}
    how["similarity_fct"] = util.cos_sim if options.normalise else util.dot_score
    if chunk_rows:
        loss = kinds.CachedMultipleNegativesRankingLoss(model, mini_batch_size=chunk_rows, **how)
    else:
        loss = kinds.MultipleNegativesRankingLoss(model, **how)
    batch = ranking_batch(CONFIG)
    passages = [batch["passage_input_ids"], batch["passage_attention_mask"]]
    columns = [(batch["query_input_ids"], batch["query_attention_mask"])]
    columns += [tuple(array[:, i] for array in passages) for i in range(3)]
    expected = theirs(model, loss, columns)
    assert_close(ours(retriever.build, options, batch, chunk_rows), expected, TOLERANCE)
    for wrong in () if chunk_rows else ({"temperature": 0.7}, {"exclude_copies": True}):
        other = our_loss(retriever.build, dataclasses.replace(options, **wrong), batch)
        assert abs(other / expected["loss"] - 1) > 1e-3, wrong


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_similarity_equals_the_regression_of_cosines(models, pooling):
    model = models[pooling]
    batch = rows_batch(CONFIG, 2)
    columns = [(batch["input_ids"][:, i], batch["attention_mask"][:, i]) for i in range(2)]
    loss = losses_of_theirs().CosineSimilarityLoss(model)
    expected = theirs(model, loss, columns, batch["similarity"])
    assert_close(ours(similarity.build, SimilarityConfig(pooling=pooling), batch), expected, 1e-9)
    other = SimilarityConfig(pooling="cls" if pooling == "mean" else "mean")
    assert abs(our_loss(similarity.build, other, batch) / expected["loss"] - 1) > 1e-3


def test_sections_equal_the_triplet_loss(models):
    batch = rows_batch(CONFIG, 3)
    columns = [(batch["input_ids"][:, i], batch["attention_mask"][:, i]) for i in range(3)]
    loss = losses_of_theirs().TripletLoss(models["cls"])
    expected = theirs(models["cls"], loss, columns, batch["similarity"])
    got = ours(sections.build, SectionsConfig(), batch)
    # What is added to all vectors alike changes no distance: its gradient is 0, and rounding.
    shift = f"encoder.layer.{CONFIG.num_layers - 1}.output.LayerNorm.bias"
    assert max(np.abs(found.pop(shift)).max() for found in (got, expected)) < 1e-12
    assert_close(got, expected, TOLERANCE)
    other = our_loss(sections.build, SectionsConfig(margin=4.9), batch)
    assert abs(other / expected["loss"] - 1) > 1e-3
