"""Computing only what is needed gives the plain form's loss and gradients, dropout on.

Reference: `compute.lean=False`, every layer and the vocabulary product at every position.
Tolerance: 1e-9 in float64, 1e-4 in float32. Negative controls: other randomness, another position.
"""

import functools

import jax
import numpy as np
import pytest

from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import cocondenser, condenser, mlm
from condenser_jax.objectives.cocondenser import CoCondenserConfig
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.objectives.mlm import MlmConfig
from tests.helpers import (
    assert_close,
    compile_quickly,
    masked_batch,
    random_params,
    tiny_backbone,
    worst_difference,
)

METHODS = {
    "mlm": (mlm, MlmConfig(), 2),
    "condenser": (condenser, CondenserConfig(), 3),
    "late MLM off, 1 head layer, early 0": (
        condenser,
        CondenserConfig(late_mlm=False, head_layers=1, early_layer=0),
        2,
    ),
    "1 head layer, 1 late layer": (condenser, CondenserConfig(head_layers=1, early_layer=1), 2),
    "cocondenser": (cocondenser, CoCondenserConfig(head_layers=1), 2),
}
FORMS = {
    "scanned": {"scan_layers": True},
    "remat": {"remat": True},
    "scanned, remat": {"scan_layers": True, "remat": True},
    "scanned, plain": {"scan_layers": True, "lean": False},
}


def _batch(layers: int) -> dict[str, np.ndarray]:
    return masked_batch(tiny_backbone(num_layers=layers))


def _randomness(step: int = 3) -> Dropout:
    return Dropout(np.array([7, step], np.uint32), np.arange(4, dtype=np.int32))


def _compiled(method: str, dtype: str, **form):
    """(params, batch, dropout) -> loss and all gradients, and the parameters to call it with."""
    module, options, layers = METHODS[method]
    compute = ComputeConfig(dtype=dtype, **form)
    objective = module.build(tiny_backbone(num_layers=layers), compute, options)

    def loss(params, batch, dropout):
        counts = objective.counts(batch)
        return objective.losses(params, {}, batch, counts, dropout)["train"].value

    params = random_params(objective, dtype)
    run = compile_quickly(jax.value_and_grad(loss), params, _batch(layers), _randomness())
    return functools.partial(run, params)


@functools.cache
def _plain(method: str, dtype: str):
    """Loss and gradients of the plain form."""
    run = _compiled(method, dtype, lean=False)
    return jax.device_get(run(_batch(METHODS[method][2]), _randomness()))


@pytest.mark.parametrize("method", METHODS)
def test_the_lean_form_equals_the_plain_one_in_float64(method):
    with jax.enable_x64(True):
        run = _compiled(method, "float64")
        batch = _batch(METHODS[method][2])
        assert_close(run(batch, _randomness()), _plain(method, "float64"), 1e-9)
        assert worst_difference(run(batch, _randomness(4)), _plain(method, "float64"))[0] > 1e-2
        moved = batch | {"masked_positions": batch["masked_positions"].copy()}
        moved["masked_positions"][2, 0] = moved["input_ids"].shape[1] - 1
        assert worst_difference(run(moved, _randomness()), _plain(method, "float64"))[0] > 1e-2


@pytest.mark.parametrize("form", ["scanned", "remat"])
def test_every_form_of_the_computation_equals_the_plain_one(form):
    _check_form(form)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["scanned, remat", "scanned, plain"])
def test_forms_combine(form):
    _check_form(form)


def _check_form(form: str) -> None:
    with jax.enable_x64(True):
        run = _compiled("condenser", "float64", **FORMS[form])
        assert_close(run(_batch(3), _randomness()), _plain("condenser", "float64"), 1e-9)


def test_the_lean_form_equals_the_plain_one_in_float32():
    method = "1 head layer, 1 late layer"
    result = _compiled(method, "float32")(_batch(2), _randomness())
    assert_close(result, _plain(method, "float32"), 1e-4)


def _kept_per_layer(**form) -> int:
    """Bytes of activations that one layer more keeps for the backward pass."""
    batch = {"input_ids": np.ones((8, 40), np.int32), "attention_mask": np.ones((8, 40), np.int32)}

    def kept(layers: int) -> int:
        model = Backbone(tiny_backbone(num_layers=layers), ComputeConfig(**form))
        dropout = Dropout(np.array([7, 1], np.uint32), np.arange(8, dtype=np.int32))

        def residuals(key):
            params = model.init(key, **batch)
            run = lambda params: model.apply(params, **batch, dropout=dropout)[0]  # noqa: E731
            return jax.vjp(run, params)[1]

        shapes = jax.tree.leaves(jax.eval_shape(residuals, jax.random.key(0)))
        return sum(x.size * x.dtype.itemsize for x in shapes)

    return (kept(4) - kept(2)) // 2


def test_scanned_layers_keep_their_products_alone_for_the_backward_pass():
    scores, states = 8 * 2 * 40 * 40 * 4, 8 * 40 * 4
    products = scores + states * (3 * 16 + 16 + 16 + 24 + 16)  # q k v, context, output, inner, out
    weights = 4 * (4 * 16 * 16 + 2 * 16 * 24) + 1000
    assert products < _kept_per_layer(scan_layers=True) < products + states * 16 + weights
    assert _kept_per_layer() > 2 * products
