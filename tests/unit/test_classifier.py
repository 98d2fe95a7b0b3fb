"""What a classifier starts from, and what its head drops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from condenser_jax.hf import names
from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.load import Checkpoint, load_checkpoint
from condenser_jax.methods import METHODS, configure
from condenser_jax.models.classifier import Classifier
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import classifier
from condenser_jax.training.optimizers import by_depth
from condenser_jax.warm_start import initial_groups
from tests.helpers import tiny_backbone
from tests.hf_models import random_params, tiny_config

READS = METHODS["classifier"].reads


def _write(folder, config, params, extra):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_to_hf(config, has_mlm_head=False)))
    tensors = names.to_hf(params, config, ["backbone"]) | extra
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def bert(tmp_path):
    """(folder, kernel of its pooler): a fine-tuned BERT, with a classifier of some task."""
    config = tiny_config("bert")
    kernel = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    extra = {
        "bert.pooler.dense.weight": np.ascontiguousarray(kernel.T),
        "bert.pooler.dense.bias": np.zeros(32, np.float32),
        "classifier.weight": np.zeros((5, 32), np.float32),
        "classifier.bias": np.zeros(5, np.float32),
    }
    return _write(tmp_path / "bert", config, random_params(config), extra), kernel


def test_a_pooler_is_read_where_it_is_asked_for_and_there(bert):
    folder, kernel = bert
    loaded = load_checkpoint(folder, READS)
    np.testing.assert_array_equal(loaded.params["pooler"]["transform"]["kernel"], kernel)
    assert f"pooler: from {folder / 'model.safetensors'}" in loaded.notes
    plain = load_checkpoint(folder)
    assert set(plain.params) == {"backbone"}
    assert "ignored, not part of the encoder: bert.pooler.dense.bias" in plain.notes[0]


def test_a_bare_pooler_is_read_too(tmp_path, bert):
    folder, kernel = bert
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    bare = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    safetensors.numpy.save_file(bare, folder / "model.safetensors")
    loaded = load_checkpoint(folder, READS)
    np.testing.assert_array_equal(loaded.params["pooler"]["transform"]["kernel"], kernel)


def test_a_roberta_s_pooler_is_not_missed(tmp_path):
    config = tiny_config("roberta")
    folder = _write(tmp_path / "roberta", config, random_params(config), {})
    loaded = load_checkpoint(folder, READS)
    assert set(loaded.params) == {"backbone"}
    assert not any(note.startswith("pooler") for note in loaded.notes)


def _start(params, config):
    objective = classifier.build(config, ComputeConfig(), classifier.ClassifierConfig(task="rte"))
    run = configure({"objective": {"name": "classifier", "task": "rte"}})
    return initial_groups(objective, Checkpoint(config, params, None, []), run)


def test_what_is_missing_starts_fresh_and_is_said():
    config = tiny_backbone()
    loaded, notes = _start({"backbone": {"x": 1}, "mlm_head": {"x": 1}}, config)
    assert set(loaded) == {"backbone"}
    assert notes == ["weights: pooler random", "weights: classifier random"]


def test_the_classifier_of_another_run_is_never_taken():
    groups = {"backbone": {"x": 1}, "pooler": {"x": 1}, "classifier": {"x": 1}}
    loaded, notes = _start(groups, tiny_backbone())
    assert set(loaded) == {"backbone", "pooler"} and notes == ["weights: classifier random"]


def test_of_two_encoders_it_is_said_which_one_is_left_out():
    _, notes = _start({"backbone": {"x": 1}, "query_backbone": {"x": 1}}, tiny_backbone())
    (line,) = (note for note in notes if "query_backbone" in note)
    assert line.endswith("left out, for one encoder is read: that of passages")


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_the_head_drops_by_the_number_of_the_row(model_type):
    config = tiny_backbone(model_type=model_type)
    head = Classifier(config, ComputeConfig(), outputs=3, rate=0.5)
    cls = jnp.ones((4, config.hidden_size))
    params = head.init(jax.random.key(0), cls, None)

    def logits(rows):
        return head.apply(params, cls[: len(rows)], Dropout(jnp.array([1, 2], jnp.uint32), rows))

    all_rows = logits(jnp.arange(4))
    assert len(np.unique(np.asarray(all_rows)[:, 0])) == 4
    np.testing.assert_allclose(logits(jnp.arange(2, 4)), all_rows[2:], atol=1e-6)
    plain = head.apply(params, cls, None)
    np.testing.assert_array_equal(plain[0], plain[1])


def test_layers_learn_slower_the_deeper_they_lie():
    one = {"kernel": jnp.ones((2, 2))}
    backbone = {
        "embeddings": {"word": {"embedding": jnp.ones((3, 2))}},
        "layers": {f"layer_{i}": one for i in range(11)},
    }
    scale = by_depth(0.5)
    updates, _ = scale.update(backbone, scale.init(backbone))
    assert updates["layers"]["layer_10"]["kernel"][0, 0] == 0.5
    assert updates["layers"]["layer_2"]["kernel"][0, 0] == 0.5**9
    assert updates["embeddings"]["word"]["embedding"][0, 0] == 0.5**12
    head, _ = scale.update({"output": one}, optax.EmptyState())
    assert head["output"]["kernel"][0, 0] == 1.0
