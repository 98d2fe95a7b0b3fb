"""The retriever's loss: in chunks as on the whole batch, tied or not, and nothing leaks."""

import jax
import numpy as np
import pytest

from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import retriever
from condenser_jax.objectives.retriever import RetrieverConfig
from tests.helpers import (
    assert_close,
    compile_quickly,
    random_params,
    tiny_backbone,
    worst_difference,
)

BACKBONE = tiny_backbone(num_layers=1)
QUERIES, GROUP = 4, 3
OPTIONS = {
    "tied, cls": RetrieverConfig(),
    "untied, mean, cosine, distilled": RetrieverConfig(
        tied=False, pooling="mean", normalise=True, temperature=0.1, distillation="kl"
    ),
}


def _texts(rng, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = rng.integers(3, shape[-1] + 1, shape[:-1])
    mask = (np.arange(shape[-1]) < lengths[..., None]).astype(np.int32)
    return rng.integers(5, BACKBONE.vocab_size, shape).astype(np.int32) * mask, mask


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    query, query_mask = _texts(rng, QUERIES, 7)
    passage, passage_mask = _texts(rng, QUERIES, GROUP, 11)
    passages = np.arange(QUERIES * GROUP, dtype=np.int32).reshape(QUERIES, GROUP)
    passages[3, 1] = passages[0, 0]
    return {
        "query_input_ids": query,
        "query_attention_mask": query_mask,
        "passage_input_ids": passage,
        "passage_attention_mask": passage_mask,
        "passages": passages,
        "positives": passages[:, :1],
        "teacher_scores": rng.normal(size=(QUERIES, GROUP)).astype(np.float32),
    }


def _gradients(options: RetrieverConfig, rows_at_a_time: int = 0, step: int = 3):
    compute = ComputeConfig(dtype="float64", chunk_rows=rows_at_a_time)
    objective = retriever.build(BACKBONE, compute, options)

    def loss(params, batch, dropout):
        return objective.losses(params, {}, batch, objective.counts(batch), dropout)["train"].value

    dropout = Dropout(np.array([7, step], np.uint32), np.arange(QUERIES, dtype=np.int32))
    arguments = (random_params(objective, "float64"), _batch(), dropout)
    return jax.device_get(compile_quickly(jax.value_and_grad(loss), *arguments)(*arguments))


@pytest.mark.parametrize("name", OPTIONS)
def test_chunks_give_the_loss_and_the_gradient_of_the_whole_batch(name):
    with jax.enable_x64(True):
        whole = _gradients(OPTIONS[name])
        assert_close(_gradients(OPTIONS[name], rows_at_a_time=2), whole, 1e-9)
        assert worst_difference(_gradients(OPTIONS[name], step=4), whole)[0] > 1e-3


def test_untied_encoders_start_equal_and_are_two_groups():
    objective = retriever.build(BACKBONE, ComputeConfig(), RetrieverConfig(tied=False))
    params = objective.init(jax.random.key(0), {})
    assert worst_difference(params["query_backbone"], params["backbone"])[0] == 0
    assert objective.groups_of(("train",)) == ("backbone", "query_backbone")
    tied = retriever.build(BACKBONE, ComputeConfig(), RetrieverConfig())
    assert tied.groups_of(("train",)) == ("backbone",)
