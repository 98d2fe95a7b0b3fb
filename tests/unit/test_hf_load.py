"""Checkpoints are found, read and accounted for; what is amiss is said in one line."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from condenser_jax.errors import UserError
from condenser_jax.hf import names
from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.load import check_vocabulary, load_checkpoint
from tests.hf_models import random_params, tiny_config

CONFIG = tiny_config("bert")
PARAMS = random_params(CONFIG)
HEAD = names.to_hf(PARAMS, CONFIG, ["condenser_head"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="writes torch files, and torch is not installed")


@pytest.fixture
def directory(tmp_path):
    """config.json and model.safetensors of backbone and MLM head."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    fields = config_to_hf(CONFIG, has_mlm_head=True)
    (folder / "config.json").write_text(json.dumps(fields))
    safetensors.numpy.save_file(_encoder(), folder / "model.safetensors")
    return folder


def _encoder():
    return names.to_hf(PARAMS, CONFIG, ["backbone", "mlm_head"])


def _assert_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def _encoder_params():
    return {group: PARAMS[group] for group in ("backbone", "mlm_head")}


def test_a_directory_of_safetensors_is_read(directory):
    loaded = load_checkpoint(directory)
    assert loaded.config == CONFIG
    assert loaded.tokenizer_path is None
    _assert_equal(loaded.params, _encoder_params())


def test_the_notes_say_where_every_group_came_from(directory):
    notes = load_checkpoint(str(directory)).notes
    weights = directory / "model.safetensors"
    assert f"backbone: from {weights}" in notes and f"mlm_head: from {weights}" in notes
    assert f"condenser_head: not in {directory}" in notes


def test_only_the_groups_that_are_asked_for_are_read(directory):
    loaded = load_checkpoint(directory, groups=["backbone"])
    _assert_equal(loaded.params, {"backbone": PARAMS["backbone"]})
    safetensors.numpy.save_file(HEAD, directory / "condenser_head.safetensors")
    loaded = load_checkpoint(directory, groups=["condenser_head"])
    _assert_equal(loaded.params, {"condenser_head": PARAMS["condenser_head"]})


def test_a_checkpoint_without_mlm_head_has_no_such_group(directory):
    bare = names.to_hf(PARAMS, CONFIG, ["backbone"])
    bare = {name.removeprefix("bert."): tensor for name, tensor in bare.items()}
    safetensors.numpy.save_file(bare, directory / "model.safetensors")
    loaded = load_checkpoint(directory)
    _assert_equal(loaded.params, {"backbone": PARAMS["backbone"]})
    assert f"mlm_head: not in {directory}" in loaded.notes


def test_weights_of_sixteen_bits_are_widened(directory):
    halved = {name: tensor.astype(np.float16) for name, tensor in _encoder().items()}
    safetensors.numpy.save_file(halved, directory / "model.safetensors")
    leaves = jax.tree.leaves(load_checkpoint(directory).params)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


def test_shards_of_safetensors_are_joined(directory):
    _shard(directory, "model", "safetensors", safetensors.numpy.save_file)
    _assert_equal(load_checkpoint(directory).params, _encoder_params())


def test_torch_files_are_read_whole_and_in_shards(torch, directory):
    def save(tensors, path):
        torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)

    (directory / "model.safetensors").unlink()
    save(_encoder(), directory / "pytorch_model.bin")
    _assert_equal(load_checkpoint(directory).params, _encoder_params())
    (directory / "pytorch_model.bin").unlink()
    _shard(directory, "pytorch_model", "bin", save)
    _assert_equal(load_checkpoint(directory).params, _encoder_params())


def _shard(directory, stem, suffix, save):
    (directory / "model.safetensors").unlink(missing_ok=True)
    weight_map = {}
    for part, name in enumerate(_encoder()):
        weight_map[name] = f"{stem}-0000{part % 2}.{suffix}"
    for file in set(weight_map.values()):
        save({n: t for n, t in _encoder().items() if weight_map[n] == file}, directory / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def test_a_missing_shard_is_named(directory):
    _shard(directory, "model", "safetensors", safetensors.numpy.save_file)
    (directory / "model-00001.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00001\.safetensors is named by an index but"):
        load_checkpoint(directory)


def test_our_condenser_head_is_read_and_its_layers_counted(directory):
    safetensors.numpy.save_file(HEAD, directory / "condenser_head.safetensors")
    loaded = load_checkpoint(directory)
    _assert_equal(loaded.params, PARAMS)
    assert sorted(loaded.params["condenser_head"]) == ["layer_0", "layer_1"]
    assert f"condenser_head: from {directory / 'condenser_head.safetensors'}" in loaded.notes


def test_the_head_of_the_reference_code_is_read_without_its_other_tensors(torch, directory):
    tensors = {name: torch.from_numpy(tensor) for name, tensor in HEAD.items()}
    tensors |= {"co_target": torch.arange(4)}
    torch.save(tensors, directory / "model.pt")
    loaded = load_checkpoint(directory)
    _assert_equal(loaded.params, PARAMS)
    assert f"ignored in {directory / 'model.pt'}: co_target" in loaded.notes


def test_a_head_that_lacks_a_parameter_is_refused(directory):
    partial = {k: v for k, v in HEAD.items() if k != "c_head.0.output.dense.bias"}
    safetensors.numpy.save_file(partial, directory / "condenser_head.safetensors")
    with pytest.raises(UserError, match=r"parameter c_head\.0\.output\.dense\.bias missing"):
        load_checkpoint(directory)


def test_a_head_for_another_task_is_named_as_left_over(directory):
    tensors = _encoder() | {"qa_outputs.weight": np.zeros((2, 32), np.float32)}
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError, match=r"parameter qa_outputs\.weight left over"):
        load_checkpoint(directory)


def test_the_tokenizer_is_found_beside_the_weights(directory):
    (directory / "vocab.txt").write_text("[PAD]\n")
    assert load_checkpoint(directory).tokenizer_path == directory


def test_a_directory_without_config_is_refused(directory):
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing; give a directory with config"):
        load_checkpoint(directory)


def test_a_config_that_is_no_json_object_is_refused(directory):
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not readable JSON .*; copy or download"):
        load_checkpoint(directory)
    (directory / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json holds a list, not a JSON object; copy"):
        load_checkpoint(directory)


def test_a_directory_without_weights_is_refused(directory):
    (directory / "model.safetensors").rename(directory / "flax_model.msgpack")
    with pytest.raises(UserError, match=r"holds no weights \(looked for model.safetensors, .*;"):
        load_checkpoint(directory)


def test_a_truncated_file_of_weights_is_refused(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model\.safetensors is broken or not complete .*; copy"):
        load_checkpoint(directory)


@pytest.mark.parametrize("name", ["no/such-model", "/no/such/directory", "./nothing here"])
def test_what_is_neither_directory_nor_hub_id_is_refused(name, monkeypatch):
    _go_offline(monkeypatch)
    with pytest.raises(UserError, match=rf"^'{name}' is neither a directory here nor a hub id"):
        load_checkpoint(name)


def test_a_hub_id_is_read_from_the_local_cache_when_offline(directory, tmp_path, monkeypatch):
    _go_offline(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--somebody--model"
    revision = "0123456789012345678901234567890123456789"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots").mkdir()
    directory.rename(cached / "snapshots" / revision)
    _assert_equal(load_checkpoint("somebody/model").params, _encoder_params())


def _go_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


class _Tokenizer:
    def __init__(self, size):
        self.size = size

    def get_vocab(self):
        return {f"token {i}": i for i in range(self.size)}


def test_a_tokenizer_larger_than_the_vocabulary_of_the_weights_is_refused():
    check_vocabulary(CONFIG, _Tokenizer(CONFIG.vocab_size))
    with pytest.raises(
        UserError, match="ids up to 61, but the weights have a vocabulary of 61; use the tokenizer"
    ):
        check_vocabulary(CONFIG, _Tokenizer(CONFIG.vocab_size + 1))
