"""MiniLM's relations are those of transformers: attention distributions as BertModel returns them,
and value relations by its own value projections.

Reference: torch on CPU, float32; KL of two random models within 1e-5 of its size. Negative
controls: another layer, padding as keys, relations not scaled.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.names import to_hf
from condenser_jax.losses.distillation import relation_kl, relations
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from tests.hf_models import random_params, tiny_config

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
KINDS = ("attention_scores", "values")
HEADS, LENGTHS = 4, (9, 5)


@pytest.fixture(scope="module")
def texts():
    """Token ids and attention mask, the second row padded."""
    ids = np.random.default_rng(0).integers(5, 61, (2, 9))
    return ids, (np.arange(9) < np.array(LENGTHS)[:, None]).astype(np.int64)


def theirs(seed, texts):
    """Attention distributions and value relations of the last layer, by transformers."""
    from transformers import BertConfig, BertModel

    config = tiny_config("bert")
    fields = config_to_hf(config, False)
    model = BertModel(BertConfig(**fields, attn_implementation="eager"), add_pooling_layer=False)
    tensors = to_hf(random_params(config, seed), config, ["backbone"])
    tensors = {name.removeprefix("bert."): torch.tensor(x) for name, x in tensors.items()}
    model.load_state_dict(tensors)
    values = []
    last = model.encoder.layer[-1].attention.self
    last.value.register_forward_hook(lambda module, inputs, output: values.append(output))
    with torch.no_grad():
        ids, mask = map(torch.tensor, texts)
        found = model.eval()(ids, mask, output_attentions=True).attentions[-1]
        parts = values[0].unflatten(-1, (HEADS, -1)).transpose(1, 2)
        scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
    return found, scores.softmax(-1)


def their_kl(teacher, student, mask):
    """Mean over heads and attended queries."""
    divergence = torch.special.xlogy(teacher, teacher / student.clamp(min=1e-30)).sum(-1)  # B H L
    return float((divergence * torch.tensor(mask)[:, None]).sum() / (HEADS * mask.sum()))


def ours(seed, texts, layer=-1):
    config = tiny_config("bert")
    params = random_params(config, seed)["backbone"]
    ids, mask = (jnp.asarray(x, jnp.int32) for x in texts)
    kept = Backbone(config, ComputeConfig()).apply({"params": params}, ids, mask, collect=KINDS)[1]
    return kept["attention_scores"][layer], relations(kept["values"][layer], HEADS)


def test_relations_are_those_of_transformers(texts):
    mask = texts[1]
    wanted = [theirs(seed, texts) for seed in (0, 1)]
    given = [ours(seed, texts) for seed in (0, 1)]
    lower = [ours(seed, texts, layer=0) for seed in (0, 1)]
    for part in range(2):
        expected = their_kl(wanted[0][part], wanted[1][part], mask)
        teacher, student = given[0][part], given[1][part]
        found = float(relation_kl(student, teacher, mask, mask.sum()))
        assert abs(found - expected) < 1e-5 * expected
        everywhere = float(relation_kl(student, teacher, np.ones_like(mask), mask.sum()))
        below = float(relation_kl(lower[1][part], lower[0][part], mask, mask.sum()))
        unscaled = float(relation_kl(2 * student, 2 * teacher, mask, mask.sum()))
        for wrong in (everywhere, below, unscaled):
            assert abs(wrong - expected) > 1e-2 * expected
