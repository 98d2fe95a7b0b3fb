"""The table of names: there and back without loss, and every misfit named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.hf import names
from condenser_jax.hf.config import config_from_hf, config_to_hf
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.heads import MlmHead, RatioHead, condenser_head
from tests.hf_models import random_params, tiny_config

MODEL_TYPES = ("bert", "roberta", "electra")


def _assert_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.fixture(params=MODEL_TYPES)
def model(request):
    config = tiny_config(request.param)
    return config, random_params(config, ratio_head=True)


@pytest.fixture
def bert():
    """(config, {hf name: array} of backbone and MLM head)."""
    config = tiny_config("bert")
    return config, names.to_hf(random_params(config), config, ["backbone", "mlm_head"])


@pytest.mark.parametrize("vocab_size", [61, 127, 128, 129, 30522])
def test_there_and_back_is_bit_equal_for_odd_vocabularies(model, vocab_size):
    config = dataclasses.replace(model[0], vocab_size=vocab_size)
    params = random_params(config, ratio_head=True)
    back = names.from_hf(names.to_hf(params, config, names.GROUPS), config, names.GROUPS)
    _assert_equal(back, params)


def test_the_vocabulary_is_exported_without_its_padding(model):
    config, params = model
    tensors = names.to_hf(params, config, names.GROUPS)
    word = tensors[f"{config.model_type}.embeddings.word_embeddings.weight"]
    heads = {"bert": "cls.predictions", "roberta": "lm_head", "electra": "generator_lm_head"}
    head = heads[config.model_type]
    assert config.padded_vocab_size > config.vocab_size
    assert word.shape == (config.vocab_size, config.embedding_width)
    assert tensors[f"{head}.bias"].shape == (config.vocab_size,)


def test_kernels_are_transposed_and_contiguous(model):
    config, params = model
    tensors = names.to_hf(params, config, ["backbone"])
    kernel = params["backbone"]["layers"]["layer_1"]["feed_forward"]["intermediate"]["kernel"]
    exported = tensors[f"{config.model_type}.encoder.layer.1.intermediate.dense.weight"]
    np.testing.assert_array_equal(exported, kernel.T)
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())


def test_the_table_lists_exactly_the_parameters_of_the_model(model):
    config, _ = model
    key, ids = jax.random.key(0), jnp.ones((1, 4), jnp.int32)
    states = jnp.ones((1, 4, config.hidden_size))
    compute = ComputeConfig()
    inits = {
        "backbone": (Backbone(config, compute), (ids, ids)),
        "mlm_head": (MlmHead(config, compute), (states,)),
        "condenser_head": (condenser_head(config, compute, 3), (states, ids)),
        "ratio_head": (RatioHead(config, compute), (states,)),
    }
    for group, (module, inputs) in inits.items():
        shapes = jax.eval_shape(module.init, key, *inputs)["params"]
        model_leaves = {path: leaf.shape for path, leaf in names.flatten(shapes)}
        expected = random_params(config, num_head_layers=3, ratio_head=True)[group]
        assert model_leaves == {path: leaf.shape for path, leaf in names.flatten(expected)}
        assert set(model_leaves) == {entry.path for entry in names.entries(config, group, 3)}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_names_without_prefix_and_with_gamma_and_beta_are_understood(model_type):
    config = tiny_config(model_type)
    params = random_params(config)
    tensors = names.to_hf(params, config, ["backbone"])
    old = {name.removeprefix(f"{model_type}."): tensor for name, tensor in tensors.items()}
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): t for name, t in old.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in old.items()}
    assert not set(old) & set(tensors)
    renamed, notes = names.canonical(old, config)
    assert notes == []
    _assert_equal(names.from_hf(renamed, config, ["backbone"])["backbone"], params["backbone"])


def test_pooler_buffers_and_next_sentence_head_are_ignored_with_a_note(bert):
    config, tensors = bert
    extra = {
        "bert.pooler.dense.weight": np.zeros((32, 32)),
        "bert.embeddings.position_ids": np.arange(40)[None],
        "cls.seq_relationship.bias": np.zeros(2),
    }
    renamed, notes = names.canonical(tensors | extra, config)
    assert set(renamed) == set(tensors)
    assert all(name in notes[0] for name in extra)


def test_copies_of_a_tied_decoder_are_ignored_with_a_note(bert):
    config, tensors = bert
    word = tensors["bert.embeddings.word_embeddings.weight"]
    bias = tensors["cls.predictions.bias"]
    copies = {"cls.predictions.decoder.weight": word, "cls.predictions.decoder.bias": bias}
    renamed, notes = names.canonical(tensors | copies, config)
    assert set(renamed) == set(tensors)
    assert len(notes) == 2 and "copy of bert.embeddings.word_embeddings.weight" in notes[0]


def test_a_bias_that_is_stored_in_the_decoder_alone_is_found(bert):
    config, tensors = bert
    bias = tensors.pop("cls.predictions.bias")
    renamed, _ = names.canonical(tensors | {"cls.predictions.decoder.bias": bias}, config)
    np.testing.assert_array_equal(renamed["cls.predictions.bias"], bias)


def test_an_untied_decoder_is_refused(bert):
    config, tensors = bert
    word = tensors["bert.embeddings.word_embeddings.weight"]
    with pytest.raises(UserError, match=r"predictions\.decoder\.weight differs from bert\.emb"):
        names.canonical(tensors | {"cls.predictions.decoder.weight": word + 1}, config)


def test_a_missing_parameter_is_named(bert):
    config, tensors = bert
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    with pytest.raises(
        UserError, match=r"bert\.encoder\.layer\.1\.output\.dense\.bias missing: .* one checkpoint"
    ):
        names.from_hf(tensors, config, ["backbone", "mlm_head"])


def test_a_parameter_left_over_is_named_and_the_others_counted(bert):
    config, tensors = bert
    smaller = dataclasses.replace(config, num_layers=1)
    with pytest.raises(
        UserError, match=r"bert\.encoder\.layer\.1\.\S+ and 15 more left over: .* one checkpoint"
    ):
        names.from_hf(tensors, smaller, ["backbone", "mlm_head"])


def test_a_parameter_of_another_shape_is_named_with_both_shapes(bert):
    config, tensors = bert
    wider = dataclasses.replace(config, vocab_size=62)
    with pytest.raises(
        UserError,
        match=r"bert\.embeddings\.word\S+ has shape \[61, 32\], expected \[62, 32\]",
    ):
        names.from_hf(tensors, wider, ["backbone", "mlm_head"])


def test_a_tree_that_does_not_fit_the_configuration_is_not_exported(model):
    config, params = model
    with pytest.raises(UserError, match=r"backbone/layers/layer_1/\S+ and 15 more left over"):
        names.to_hf(params, dataclasses.replace(config, num_layers=1), ["backbone"])
    params["mlm_head"]["bias"] = params["mlm_head"]["bias"][:-1]
    rows = config.padded_vocab_size
    with pytest.raises(
        UserError, match=rf"mlm_head/bias \(as \S+\) has shape \[{rows - 1}\], expected \[{rows}\]"
    ):
        names.to_hf(params, config, ["mlm_head"])


def test_the_configuration_survives_the_journey(model):
    config, _ = model
    assert config_from_hf(config_to_hf(config, has_mlm_head=True)) == config


def test_absent_fields_of_config_json_mean_what_they_mean_to_transformers():
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    fields = sizes | {"intermediate_size": 4, "model_type": "roberta"}
    config = config_from_hf(fields)
    assert (config.max_positions, config.type_vocab_size, config.pad_token_id) == (512, 2, 1)
    assert config_from_hf(fields | {"model_type": "bert"}).pad_token_id == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "robertta"}, "unknown model_type in config.json 'robertta'; did you mean"),
        ({"model_type": None}, "config.json names no model_type; add"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new', but only 'gelu' is supported; choose"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type 'relative_key', but only 'absolute' is supported; choose",
        ),
        ({"is_decoder": True}, "is_decoder True, but only False is supported; choose"),
        ({"add_cross_attention": True}, "add_cross_attention True, but only False"),
        ({"hidden_size": None}, "config.json lacks hidden_size; complete it"),
        ({"num_attention_heads": 5}, "hidden_size 32, which does not divide by num_att.* 5; corr"),
    ],
)
def test_architectures_that_are_not_supported_are_refused(changes, message):
    fields = config_to_hf(tiny_config("bert"), has_mlm_head=True) | changes
    fields = {field: value for field, value in fields.items() if value is not None}
    with pytest.raises(UserError, match=message):
        config_from_hf(fields)
