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
from tests.text_batches import ranking_batch

BACKBONE = tiny_backbone(num_layers=1)
QUERIES = 4
OPTIONS = {
    "tied, cls": RetrieverConfig(),
    "untied, mean, cosine, distilled": RetrieverConfig(
        tied=False, pooling="mean", normalise=True, temperature=0.1, distillation="kl"
    ),
}


def _gradients(options: RetrieverConfig, rows_at_a_time: int = 0, step: int = 3):
    compute = ComputeConfig(dtype="float64", chunk_rows=rows_at_a_time)
    objective = retriever.build(BACKBONE, compute, options)

    def loss(params, batch, dropout):
        return objective.losses(params, {}, batch, objective.counts(batch), dropout)["train"].value

    dropout = Dropout(np.array([7, step], np.uint32), np.arange(QUERIES, dtype=np.int32))
    arguments = (random_params(objective, "float64"), ranking_batch(BACKBONE), dropout)
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
