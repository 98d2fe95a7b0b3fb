"""Condenser's loss and every gradient equal those of a composition of transformers' own layers.

Reference: tests/parity/torch_reference.py, eager attention, no dropout, padded rows, float64.
Tolerance 1e-9 of each tensor's largest element. Negative controls: another early_layer, early
and late states swapped, late MLM the other way.
"""

import jax
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.objectives import condenser  # noqa: E402
from tests.helpers import (  # noqa: E402
    assert_close,
    compile_quickly,
    masked_batch,
    random_params,
    tiny_backbone,
    worst_difference,
)
from tests.parity.torch_reference import Reference, as_theirs  # noqa: E402

EARLY_LAYER = 1


@pytest.mark.parametrize("late_mlm", [True, False], ids=["late MLM", "no late MLM"])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_condenser_equals_transformers_layers(model_type, late_mlm):
    is_roberta = model_type == "roberta"
    config = tiny_backbone(
        model_type=model_type,
        num_layers=2,
        type_vocab_size=1 if is_roberta else 2,
        pad_token_id=1 if is_roberta else 0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    options = condenser.CondenserConfig(early_layer=EARLY_LAYER, late_mlm=late_mlm)
    with jax.enable_x64(True):
        objective = condenser.build(config, ComputeConfig(dtype="float64"), options)
        params, batch = random_params(objective, "float64"), masked_batch(config)
        loss, gradients = _ours(objective, params, batch)
    reference = Reference(config, params)
    ours = {"loss": loss} | as_theirs(config, gradients)

    def theirs(**options):
        loss = reference.condenser_loss(batch, **options)
        names = as_theirs(config, gradients)
        return {"loss": loss.item()} | reference.gradients(loss, names)

    choices = {"early_layer": EARLY_LAYER, "late_mlm": late_mlm}
    assert_close(ours, theirs(**choices), 1e-9)
    for wrong in ({"early_layer": 0}, {"swapped": True}, {"late_mlm": not late_mlm}):
        assert worst_difference(ours, theirs(**choices | wrong))[0] > 1e-3, wrong


def _ours(objective, params, batch):
    def loss(params, batch):
        counts = objective.counts(batch)
        return objective.losses(params, {}, batch, counts, None)["train"].value

    run = compile_quickly(jax.value_and_grad(loss), params, batch)
    return jax.device_get(run(params, batch))
