"""The operations counted on paper are the matrix products that the program states."""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import condenser, mlm
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.mlm import MlmConfig
from condenser_jax.objectives.retriever import TextEncoder
from condenser_jax.training.distillation_flops import distillation_flops, tutor_kd_flops
from condenser_jax.training.flops import encode_flops, train_flops_per_token
from condenser_jax.training.state import create_state
from condenser_jax.training.step import dials_of, make_step
from tests.distillation import frozen_teacher
from tests.helpers import masked_batch, tiny_backbone
from tests.text_batches import batch_of

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
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * _products(inner) if hasattr(inner, "eqns") else 0
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
    return _of_gradients(objective, batch) / (ROWS * LENGTH)


def _of_gradients(objective, batch) -> int:
    """Operations of the loss of a batch and its gradients, as traced."""
    params = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))

    def loss(params):
        return objective.losses(params, {}, batch, objective.counts(batch), None)["train"].value

    return _products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)


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


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_vector_is_counted_as_it_is_traced_of_the_last_layer_the_cls_alone(pooling):
    """All rows of the last layer would give the same vectors."""
    encoder = TextEncoder(BACKBONE, ComputeConfig(), pooling, False)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    ids = jnp.ones((ROWS, LENGTH), jnp.int32)
    traced = jax.make_jaxpr(lambda params: encoder(params, ids, ids, None))(params).jaxpr
    assert _products(traced) == ROWS * encode_flops(BACKBONE, LENGTH, pooling)
    assert encode_flops(BACKBONE, LENGTH, "cls") < encode_flops(BACKBONE, LENGTH, "mean")


QUERIES, GROUP = 4, 3
CONTRAST = 3 * 2 * QUERIES * QUERIES * GROUP * BACKBONE.hidden_size  # the scores, not counted


@pytest.mark.parametrize(
    ("method", "choices", "length", "tokens", "uncounted"),
    [
        ("retriever", {}, 0, 7 + GROUP * 11, CONTRAST),
        ("retriever", {"pooling": "mean"}, 0, 7 + GROUP * 11, CONTRAST),
        ("similarity", {}, 7, 2 * 7, 0),
        ("similarity", {"pooling": "mean"}, 7, 2 * 7, 0),
        ("sections", {}, 7, 3 * 7, 0),
        ("classifier", {}, 16, 16, 0),
    ],
)
def test_a_step_of_fine_tuning_is_counted_as_it_is_traced(
    method, choices, length, tokens, uncounted
):
    """A row of `batch_of` has so many tokens."""
    options = METHODS[method].options(**choices)
    data = {"query_length": 7, "passage_length": 11, "group": GROUP, "max_length": length}
    config = types.SimpleNamespace(data=types.SimpleNamespace(**data), objective=options)
    counted = QUERIES * tokens * METHODS[method].flops(BACKBONE, config)
    objective = METHODS[method].build(BACKBONE, ComputeConfig(), options)
    stated = _of_gradients(objective, batch_of(method, BACKBONE, QUERIES))
    assert stated == counted + uncounted
    assert uncounted < stated / 1000


TEACHER = Teacher(tiny_backbone(num_layers=4, hidden_size=12))
STUDENT = tiny_backbone(num_layers=2, model_type="electra", embedding_size=8)
STEPS = [  # method, its options, the phases of a step
    ("kd", {}, "train"),
    ("distilbert", {}, "train"),
    ("tinybert", {}, "train"),
    ("minilm", {}, "train"),
    ("minilm", {"teacher_layer": 3}, "train"),
    ("minilmv2", {"relation_heads": 4}, "train"),
    ("tutor_kd", {"schedule": "joint"}, "maximise minimise"),
    ("tutor_kd", {}, "maximise"),
    ("tutor_kd", {}, "minimise"),
    ("tutor_kd", {"kl_weight": 0.0}, "minimise"),
    ("tutor_kd", {"policy_weight": 0.0}, "minimise"),
    ("tutor_kd", {"hidden_weight": 0.0}, "minimise"),
    ("tutor_kd", {"hidden_weight": 0.0, "attention_weight": 0.0}, "minimise"),
    ("tutor_kd", {"modified_logit": False}, "maximise"),
    ("tutor_kd", {"modified_logit": False}, "minimise"),
    ("tutor_kd", {"sampling": "teacher"}, "minimise"),
    ("tutor_kd", {"sampling": "uniform"}, "minimise"),
    ("tutor_kd", {"sampling": "none"}, "minimise"),
    ("tutor_kd", {"sampling": "teacher", "modified_logit": False}, "minimise"),
    ("tutor_kd", {"sampling": "uniform", "modified_logit": False}, "minimise"),
]


@pytest.mark.parametrize(("method", "choices", "phases"), STEPS)
def test_a_step_of_distillation_is_counted_as_it_is_traced_but_for_what_nobody_reads(
    method, choices, phases
):
    options, active = METHODS[method].options(**choices), tuple(phases.split())
    counted, traced = _counted_and_traced(method, options, active, ComputeConfig())
    assert counted == traced


@pytest.mark.parametrize("layer", [None, 3])
def test_minilm_computes_nothing_above_the_layers_that_it_compares_where_layers_are_scanned(layer):
    options = METHODS["minilm"].options(teacher_layer=layer)
    compute = ComputeConfig(scan_layers=True)
    counted, traced = _counted_and_traced("minilm", options, ("train",), compute)
    assert counted == traced


def _counted_and_traced(method, options, active, compute):
    """Operations of a step on paper, and of its trace but for what nobody reads."""
    objective = METHODS[method].build(STUDENT, compute, options, TEACHER)
    batch = masked_batch(STUDENT, ROWS, LENGTH, MASK_RATE)
    slots = batch["masked_ids"].shape[1]
    optimizers = {group: optax.sgd(1.0) for group in objective.groups_of(active)}
    state = jax.eval_shape(
        lambda key: create_state(objective, optimizers, key, {}), jax.random.key(0)
    )
    step = make_step(objective, optimizers, active)
    traced = jax.make_jaxpr(step)(state, frozen_teacher(TEACHER), batch, dials_of(0)).jaxpr
    read, _ = dce_jaxpr(traced, [True] * len(traced.outvars))
    how = STUDENT, TEACHER.config, options, LENGTH, slots
    is_phased = method == "tutor_kd"
    counted = tutor_kd_flops(*how, active) if is_phased else distillation_flops(*how)
    return ROWS * counted, _products(read)


def test_a_step_of_alternating_phases_costs_their_mean():
    options = METHODS["tutor_kd"].options(maximise_steps=1, minimise_steps=3)
    how = STUDENT, TEACHER.config, options, LENGTH, 6
    tutor, student = (tutor_kd_flops(*how, (phase,)) for phase in ("maximise", "minimise"))
    assert distillation_flops(*how) == (tutor + 3 * student) / 4


def test_a_lean_step_of_bert_base_needs_two_thirds_of_the_plain_one():
    base, options = BackboneConfig(30522), CondenserConfig()
    lean, plain = (train_flops_per_token(base, options, 128, lean=lean) for lean in (True, False))
    assert lean / plain <= 0.67
    assert round(lean / 1e6) == 592
