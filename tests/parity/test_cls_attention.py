"""Attention of and to the CLS equals what transformers' own attention weights give.

Reference: BertModel, eager attention, torch on CPU, float32; tolerance 1e-5 for a tiny random
model. Negative control: the weights of the layer below must differ.
"""

import numpy as np
import pytest

from condenser_jax.evaluation.cls_attention import cls_attention
from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.names import to_hf
from condenser_jax.training.sharding import make_mesh
from tests.hf_models import random_params, tiny_config

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

CONFIG = tiny_config("bert")
LENGTHS = (12, 3, 7, 9, 2, 12, 5, 8)


def reference_attentions(params, input_ids, attention_mask):
    """Per layer, weights [B, H, L, L] after softmax."""
    from transformers import BertConfig, BertModel

    fields = config_to_hf(CONFIG, has_mlm_head=False)
    config = BertConfig(**fields, attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    tensors = {
        name.removeprefix("bert."): torch.tensor(np.ascontiguousarray(value))
        for name, value in to_hf(params, CONFIG, ["backbone"]).items()
    }
    model.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        inputs = (torch.tensor(array).long() for array in (input_ids, attention_mask))
        return [layer.numpy() for layer in model(*inputs, output_attentions=True).attentions]


def figures(weights, lengths):
    """Entropy and attention received, text by text, head by head."""
    entropies, received = [], []
    for text, length in zip(weights, lengths, strict=True):
        for head in text:
            of_cls = head[0, :length].astype(np.float64)
            entropies.append(-(of_cls * np.log(of_cls)).sum())
            received.append(head[1:length, 0].mean())
    return np.mean(entropies), np.mean(received)


def test_figures_equal_those_of_transformers():
    params = random_params(CONFIG, seed=3)
    rng = np.random.default_rng(0)
    input_ids = rng.integers(5, CONFIG.vocab_size, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    attention_mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    found = cls_attention(CONFIG, params["backbone"], [batch], make_mesh())
    theirs = reference_attentions(params, input_ids, attention_mask)
    expected = np.array([figures(weights, LENGTHS) for weights in theirs])
    ours = np.array([found.entropy, found.received]).T
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert np.abs(ours - expected[::-1]).min() > 1e-3, "another layer's weights would not pass"
