"""The operations counted on paper are the matrix products that the program states."""

import dataclasses
import math

import jax
import pytest

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import condenser, mlm
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.objectives.mlm import MlmConfig
from condenser_jax.training.flops import train_flops_per_token
from tests.helpers import masked_batch, tiny_backbone

BACKBONE = tiny_backbone(num_layers=3)
ROWS, LENGTH, MASK_RATE = 2, 40, 0.15


def _products(jaxpr) -> int:
    """Operations of all matrix products in a jaxpr, those of inner functions included.

    A product with a vector is a sum: the bias gradient of the vocabulary is written as one.
    """
    total = 0
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += _products(inner) if hasattr(inner, "eqns") else 0
        is_product = equation.primitive.name == "dot_general"
        if is_product and all(operand.aval.ndim > 1 for operand in equation.invars):
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            rows = math.prod(equation.outvars[0].aval.shape)
            total += 2 * rows * math.prod(left[axis] for axis in contracted)
    return total


def _stated(module, options, lean: bool) -> float:
    """Operations per token of the loss and its gradients, as traced (nothing is compiled)."""
    objective = module.build(BACKBONE, ComputeConfig(lean=lean), options)
    batch = masked_batch(BACKBONE, ROWS, LENGTH, MASK_RATE)
    params = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))

    def loss(params):
        return objective.losses(params, {}, batch, objective.counts(batch), None)["train"].value

    return _products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr) / (ROWS * LENGTH)


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize(
    ("module", "options"),
    [
        (mlm, MlmConfig()),
        (condenser, CondenserConfig()),
        (condenser, CondenserConfig(late_mlm=False, head_layers=1)),
    ],
)
def test_the_count_on_paper_is_that_of_the_traced_program(module, options, lean):
    counted = train_flops_per_token(BACKBONE, options, LENGTH, MASK_RATE, lean)
    assert counted == _stated(module, options, lean)
    other = dataclasses.replace(BACKBONE, num_layers=4)
    assert train_flops_per_token(other, options, LENGTH, MASK_RATE, lean) != counted


def test_a_lean_step_of_bert_base_needs_two_thirds_of_the_plain_one():
    base, options = BackboneConfig(30522), CondenserConfig()
    lean, plain = (train_flops_per_token(base, options, 128, lean=lean) for lean in (True, False))
    assert lean / plain <= 0.67
    assert round(lean / 1e6) == 592
