"""Every part of the encoder, and the MLM head, compute what transformers computes.

Reference: transformers' modules, eager attention, float64. Tolerance 1e-9 of the largest element.
Negative controls: the tanh form of GELU, another layer's weights, a mask that is left out.
"""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

from condenser_jax.models import bert  # noqa: E402
from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.models.heads import MlmHead  # noqa: E402
from condenser_jax.objectives import condenser  # noqa: E402
from tests.helpers import compile_quickly, masked_batch, random_params, tiny_backbone  # noqa: E402
from tests.parity.torch_reference import Reference, additive_mask  # noqa: E402

COMPUTE = ComputeConfig(dtype="float64")
TOLERANCE = 1e-9


class Case:
    """A tiny model with random weights, ours and theirs, and something to feed it."""

    def __init__(self, model_type: str) -> None:
        is_roberta = model_type == "roberta"
        self.config = tiny_backbone(
            model_type=model_type,
            num_layers=2,
            type_vocab_size=1 if is_roberta else 2,
            pad_token_id=1 if is_roberta else 0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
        objective = condenser.build(self.config, COMPUTE, condenser.CondenserConfig())
        self.params = random_params(objective, "float64")
        self.reference = Reference(self.config, self.params)
        self.batch = masked_batch(self.config)
        shape = (*self.batch["input_ids"].shape, self.config.hidden_size)
        self.hidden = np.random.default_rng(1).standard_normal(shape)

    def layer(self, index: int = 0):
        return self.params["backbone"]["layers"][f"layer_{index}"]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def case(request):
    with jax.enable_x64(True):
        return Case(request.param)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def _apply(module, params, *inputs, **static):
    def function(params, *inputs):
        return module.apply({"params": params}, *inputs, **static)

    return jax.device_get(compile_quickly(function, params, *inputs)(params, *inputs))


def _theirs(module, *inputs):
    tensors = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
    with torch.no_grad():
        result = module(*tensors)
    return (result[0] if isinstance(result, tuple) else result).numpy()


def _difference(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_embeddings(case):
    ids, mask = case.batch["input_ids"], case.batch["attention_mask"]
    module, params = bert.Embeddings(case.config, COMPUTE), case.params["backbone"]["embeddings"]
    theirs = _theirs(case.reference.encoder.embeddings, ids.astype(np.int64))
    assert _difference(_apply(module, params, ids, mask, None, None), theirs) < TOLERANCE
    types = np.ones_like(ids) % case.config.type_vocab_size
    theirs = _theirs(
        case.reference.encoder.embeddings, ids.astype(np.int64), types.astype(np.int64)
    )
    assert _difference(_apply(module, params, ids, mask, types, None), theirs) < TOLERANCE
    other = _apply(module, params, np.roll(ids, 1), mask, None, None)
    assert _difference(other, theirs) > 1e-3


def test_attention(case):
    module = bert.SelfAttention(case.config, COMPUTE)
    layer = case.reference.encoder.encoder.layer[0]
    theirs = _theirs(layer.attention, case.hidden, additive_mask(case.batch))

    def ours(index, mask):
        inputs = case.layer(index)["attention"], case.hidden, mask, None, 0, None
        return _apply(module, *inputs)[0]

    mask = case.batch["attention_mask"]
    assert _difference(ours(0, mask), theirs) < TOLERANCE
    assert _difference(ours(1, mask), theirs) > 1e-3
    assert _difference(ours(0, np.ones_like(mask)), theirs) > 1e-3


def test_feed_forward(case, monkeypatch):
    module, params = bert.FeedForward(case.config, COMPUTE), case.layer()["feed_forward"]
    layer = case.reference.encoder.encoder.layer[0]
    theirs = _theirs(layer.feed_forward_chunk, case.hidden)
    assert _difference(_apply(module, params, case.hidden, None, 0, None), theirs) < TOLERANCE
    monkeypatch.setattr(bert, "gelu", jax.nn.gelu)  # the tanh form
    assert _difference(_apply(module, params, case.hidden, None, 0, None), theirs) > 1e-6


def test_layer(case):
    module = bert.Layer(case.config, COMPUTE)
    layer, mask = case.reference.encoder.encoder.layer[0], case.batch["attention_mask"]
    theirs = _theirs(layer, case.hidden, additive_mask(case.batch))
    assert _difference(_apply(module, case.layer(), case.hidden, mask)[0], theirs) < TOLERANCE
    assert _difference(_apply(module, case.layer(1), case.hidden, mask)[0], theirs) > 1e-3


def test_encoder_hidden_states(case):
    ids, mask = case.batch["input_ids"], case.batch["attention_mask"]
    module = bert.Backbone(case.config, COMPUTE)
    _, kept = _apply(module, case.params["backbone"], ids, mask, collect=("hidden_states",))
    with torch.no_grad():
        composed = [x.numpy() for x in case.reference.hidden_states(case.batch)]
        inputs = torch.tensor(ids).long(), torch.tensor(mask)
        whole = case.reference.encoder(*inputs, output_hidden_states=True).hidden_states
    assert len(kept["hidden_states"]) == case.config.num_layers + 1 == len(whole)
    for ours, theirs, expected in zip(kept["hidden_states"], composed, whole, strict=True):
        assert _difference(ours, theirs) < TOLERANCE
        assert _difference(ours[mask > 0], expected.numpy()[mask > 0]) < TOLERANCE
    assert _difference(kept["hidden_states"][1], composed[2]) > 1e-3


def test_mlm_head(case):
    table = case.params["backbone"]["embeddings"]["word"]["embedding"]
    states, bias = _apply(MlmHead(case.config, COMPUTE), case.params["mlm_head"], case.hidden)
    real = case.config.vocab_size
    theirs = _theirs(case.reference.predict, case.hidden)
    assert _difference((states @ table.T + bias)[..., :real], theirs) < TOLERANCE
    assert (bias[real:] == -1e9).all()
    assert _difference((states @ table.T)[..., :real], theirs) > 1e-3
