"""Products of float32 are exact on every device, and no sum over rows is made in bfloat16. Read off
the programs that are given to the compiler: a CPU computes with all bits whatever it is asked for.
"""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.evaluation import cls_attention, masked_lm
from condenser_jax.methods import METHODS
from condenser_jax.models.bert import Backbone
from condenser_jax.models.classifier import Classifier
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.heads import MlmHead, RatioHead, Tutor
from tests.distillation import build_any, dropout_of
from tests.helpers import random_params, tiny_backbone
from tests.text_batches import batch_of

BACKBONE = tiny_backbone(num_layers=2)
SOME = ("cocondenser", "retriever", "classifier", "tutor_kd", "minilmv2")  # every product is here
OPTIONS = {"minilmv2": {"relation_heads": 4}}
EXACT = "precision = [HIGHEST, HIGHEST]"


def program_of(method: str, dtype: str, scan: bool = False) -> str:
    """The gradient of all losses of a method, as the compiler is given it."""
    compute = ComputeConfig(dtype=dtype, scan_layers=scan)
    options = METHODS[method].options(**OPTIONS.get(method, {}))
    objective, frozen = build_any(method, BACKBONE, compute, options)
    batch = batch_of(method, BACKBONE)

    def total(params):
        losses = objective.losses(params, frozen, batch, objective.counts(batch), dropout_of())
        return sum(loss.value for loss in losses.values())

    return jax.jit(jax.grad(total)).lower(random_params(objective)).as_text()


def products(program: str) -> list[str]:
    return [line for line in program.splitlines() if "stablehlo.dot_general" in line]


def sums_in_bfloat16(program: str) -> list[str]:
    """Sums of more than one number each whose total is kept in bfloat16."""
    array = r"tensor<([\dx]*)bf16>"
    found = re.findall(rf"applies stablehlo.add .*\({array}.*{array}", program)
    return [f"{before} -> {after}" for before, after in found if _size(before) > _size(after)]


def _size(shape: str) -> int:
    return math.prod(map(int, shape.split("x")[:-1]))


@pytest.mark.parametrize("method", SOME)
def test_every_product_of_float32_is_asked_for_with_all_bits(method):
    found = products(program_of(method, "float32"))
    assert len(found) > 20
    assert [line for line in found if EXACT not in line] == []


def test_products_of_bfloat16_are_left_to_the_device():
    found = [line for line in products(program_of("classifier", "bfloat16")) if "bf16" in line]
    assert found and not any(EXACT in line for line in found)


@pytest.mark.parametrize("method", SOME)
def test_no_gradient_is_summed_in_bfloat16(method):
    assert sums_in_bfloat16(program_of(method, "bfloat16")) == []


def test_nor_in_scanned_layers():
    assert sums_in_bfloat16(program_of("cocondenser", "bfloat16", scan=True)) == []


def test_the_gradient_of_an_ordinary_bias_would_be():
    layer, rows = nn.Dense(3, dtype=jnp.bfloat16), jnp.ones((64, 2), jnp.bfloat16)
    params = layer.init(jax.random.key(0), rows)
    gradient = jax.jit(jax.grad(lambda p: layer.apply(p, rows).astype("float32").sum()))
    program = gradient.lower(params).as_text()
    assert sums_in_bfloat16(program)
    assert all(EXACT not in line for line in products(program))


def test_logits_of_classifiers_and_ratios_are_not_rounded_to_bfloat16():
    compute = ComputeConfig(dtype="bfloat16")
    heads = RatioHead(BACKBONE, compute), Classifier(BACKBONE, compute, outputs=1, rate=0.0)
    states = jax.random.normal(jax.random.key(0), (50, BACKBONE.hidden_size), jnp.bfloat16)
    for head, rest in zip(heads, ((), (None,)), strict=True):
        logits = head.apply(head.init(jax.random.key(1), states, *rest), states, *rest)
        assert logits.dtype == jnp.float32
        assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.9


def test_evaluations_sum_with_all_bits(monkeypatch):
    lowered = []

    def over_mesh(function, mesh):
        def run(*arguments):
            lowered.append(jax.jit(function).lower(*arguments).as_text())
            return function(*arguments)

        return run

    for module in (masked_lm, cls_attention):
        monkeypatch.setattr(module, "over_mesh", over_mesh)
        monkeypatch.setattr(module, "place", lambda batch, mesh: batch)
    ones, ids = np.ones((4, 3), np.float32), np.ones((4, 3), np.int32)
    batch = {"input_ids": ids, "attention_mask": ids, "masked_ids": ids, "masked_weights": ones}
    outcome = {"late": (ones, ones)}
    losses = masked_lm.masked_lm_evaluator(
        lambda *_: outcome, [batch], np.zeros(4), np.ones(8), None
    )
    entropies = cls_attention.cls_entropy_evaluator(lambda *_: [ones[:, None]], [batch], None)
    for evaluate in (losses, entropies):
        evaluate({}, {})
    found = [products(program) for program in lowered]
    assert all(found) and len(found) == 2
    assert [line for lines in found for line in lines if EXACT not in line] == []


def test_weights_are_float32_also_where_jax_would_have_them_wider():
    ids, states = jnp.ones((1, 2), jnp.int32), jnp.ones((1, 2, BACKBONE.hidden_size))
    models = {Backbone: (ids, ids), MlmHead: (states,), Tutor: (states,)}
    with jax.enable_x64(True):
        for model, inputs in models.items():
            init = model(BACKBONE, ComputeConfig()).init
            weights = jax.eval_shape(init, jax.random.key(0), *inputs)
            assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype("float32")}
