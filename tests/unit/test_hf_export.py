"""An export is whole or not there, replaces only its own kind, and says what it is."""

import dataclasses
import json
import resource

import jax
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.hf.card import EncoderCard, read_card, write_card
from condenser_jax.hf.export import export
from condenser_jax.hf.load import load_checkpoint
from condenser_jax.hf.model_card import Facts, model_card
from tests.hf_models import random_params, tiny_config

CONFIG = tiny_config("bert")
PARAMS = random_params(CONFIG)
CARD = EncoderCard(query_max_length=16, passage_max_length=32, tokenizer_hash="abc")
FACTS = Facts(
    objective="condenser",
    initial_weights="random",
    data={"source": "docstrings:", "spans": 12345},
    training={"steps": 1000, "learning rate": 5e-4},
    evaluation={"head MLM loss": 4.25},
    versions={"jax": "0.10.2"},
)


@pytest.fixture
def tokenizer(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "optimizer.bin").write_text("not part of a tokenizer")
    return folder


@pytest.fixture
def run(tokenizer, tmp_path):
    """Exports to tmp_path/out/model, with changes."""

    def export_to(name="model", params=PARAMS, card=CARD, source=tokenizer, **options):
        return export(params, CONFIG, source, tmp_path / "out" / name, card, FACTS, **options)

    return export_to


def _names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _assert_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_an_export_holds_these_files_and_no_others(run):
    assert _names(run()) == {
        "1_Pooling/config.json",
        "README.md",
        "condenser_head.safetensors",
        "config.json",
        "config_sentence_transformers.json",
        "encoder_card.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_an_export_is_loaded_bit_equal(run):
    loaded = load_checkpoint(run())
    assert loaded.config == CONFIG
    _assert_equal(loaded.params, PARAMS)


@pytest.mark.parametrize("early_layer", [1, None])
def test_the_head_s_file_says_which_hidden_state_it_reads_if_that_is_known(run, early_layer):
    assert load_checkpoint(run(early_layer=early_layer)).early_layer == early_layer


def test_a_backbone_alone_can_be_exported(run):
    output = run(params={"backbone": PARAMS["backbone"]})
    assert json.loads((output / "config.json").read_text())["architectures"] == ["BertModel"]
    assert not (output / "condenser_head.safetensors").exists()
    assert "AutoModelForMaskedLM" not in (output / "README.md").read_text()
    _assert_equal(load_checkpoint(output).params, {"backbone": PARAMS["backbone"]})


def test_pooling_and_normalisation_are_named_in_the_files(run):
    output = run()
    pooling = json.loads((output / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_cls_token"] and not pooling["pooling_mode_mean_tokens"]
    assert len(json.loads((output / "modules.json").read_text())) == 2
    output = run("other", card=dataclasses.replace(CARD, pooling="mean", normalize=True))
    pooling = json.loads((output / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]
    assert json.loads((output / "modules.json").read_text())[2]["path"] == "2_Normalize"


def test_nothing_but_the_export_is_left_beside_it(run):
    output = run()
    run()
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_an_earlier_export_is_replaced_as_a_whole(run):
    run(card=dataclasses.replace(CARD, normalize=True))
    output = run(params={"backbone": PARAMS["backbone"]})
    assert not (output / "2_Normalize").exists()
    assert not (output / "condenser_head.safetensors").exists()


def test_an_empty_directory_may_be_the_output(run, tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    assert (run() / "config.json").exists()


def test_a_directory_that_is_no_export_is_not_touched(run, tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="exists and is not an earlier export; choose another"):
        run()
    assert _names(tmp_path / "out") == {"model/thesis.tex"}


def test_a_file_that_somebody_put_into_an_export_is_not_deleted(run):
    output = run()
    (output / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="holds notes.txt, which no export wrote .*; move it away"):
        run()
    assert (output / "notes.txt").exists()
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_a_directory_without_tokenizer_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer \(tokenizer\.json, .*; give the dir"):
        run(source=tmp_path)
    assert not _names(tmp_path / "out")


def test_a_length_beyond_the_positions_is_refused(run):
    with pytest.raises(UserError, match="passage_max_length 41 of .* exceeds the 40 pos.*; set"):
        run(card=dataclasses.replace(CARD, passage_max_length=41))


@pytest.mark.parametrize("largest", ["model.safetensors", "tokenizer.json"])
def test_a_disk_that_fills_up_leaves_the_earlier_export_and_no_half(run, tokenizer, largest):
    output = run(params={"backbone": PARAMS["backbone"]})
    before = {name: (output / name).read_bytes() for name in _names(output)}
    if largest == "tokenizer.json":
        (tokenizer / largest).write_text(" " * 1_000_000)
    limit = 60_000 if largest == "model.safetensors" else 500_000  # bytes per file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match="^cannot write .*too large.*; free some space there"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {name: (output / name).read_bytes() for name in _names(output)} == before
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_the_model_card_says_what_was_trained_on_what_with_which_numbers(run):
    text = (run() / "README.md").read_text()
    for said in (
        "# model",
        "2 layers x 32",
        "objective `condenser`",
        "| spans | 12,345 |",
        "| learning rate | 0.0005 |",
        "| head MLM loss | 4.25 |",
        "| jax | 0.10.2 |",
        "(CLS), not normalised",
        "add_pooling_layer=False",
        "Not stated",
    ):
        assert said in text, said
    assert "nonsense" not in text


def test_without_late_mlm_the_model_card_warns_of_the_masked_lm():
    card = dataclasses.replace(CARD, has_trained_mlm_head=False)
    assert "predicts nonsense" in model_card("model", CONFIG, card, FACTS, has_mlm_head=True)


def test_the_model_card_speaks_of_an_mlm_head_where_there_is_one():
    said = "an MLM head it always reports as unexpected"
    for has_head in (True, False):
        assert (said in model_card("model", CONFIG, CARD, FACTS, has_head)) == has_head


def test_the_model_card_states_licence_and_prefixes():
    card = dataclasses.replace(CARD, query_prefix="query: ", normalize=True)
    facts = dataclasses.replace(FACTS, licence="Apache-2.0")
    text = model_card("model", CONFIG, card, facts, has_mlm_head=True)
    assert "license: apache-2.0" in text and "\n\nApache-2.0\n" in text
    assert "Queries are prefixed with `query: `." in text and "scaled to unit length" in text


def test_an_encoder_card_survives_the_journey(tmp_path):
    card = dataclasses.replace(CARD, query_prefix="Frage: größer", has_trained_mlm_head=False)
    write_card(card, tmp_path / "card.json")
    assert read_card(tmp_path / "card.json") == card


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"poling": "cls"}', r"unknown field in .*card\.json 'poling'; did you mean 'pooling'\?"),
        ('{"pooling": "max"}', "unknown pooling 'max'; known: cls, mean"),
        ('{"normalize": 1}', "has normalize 1, expected bool; correct it"),
        ("[]", "is no encoder card but a list; export it again"),
        ("{", "is not readable JSON .*; export the encoder again"),
        (None, r"card\.json is missing: nothing says how this encoder pools; export it again"),
    ],
)
def test_a_card_that_cannot_be_trusted_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_card(tmp_path / "card.json")


def test_what_a_check_finds_wrong_leaves_the_earlier_export(run, tokenizer, tmp_path):
    output = run()
    before = {name: (output / name).read_bytes() for name in _names(output)}
    seen = []

    def check(directory):
        seen.append(_names(directory))
        raise RuntimeError("other vectors")

    with pytest.raises(RuntimeError, match="other vectors"):
        export(PARAMS, CONFIG, tokenizer, output, CARD, FACTS, check=check)
    assert seen == [set(before)]
    assert {name: (output / name).read_bytes() for name in _names(output)} == before
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_the_model_card_of_a_student_has_its_teacher_in_text_and_licence():
    facts = dataclasses.replace(FACTS, teacher="bert-base-uncased (12 layers x 768)")
    text = model_card("model", CONFIG, CARD, facts, has_mlm_head=False)
    assert "It learned from a teacher, bert-base-uncased (12 layers x 768).\n" in text
    assert "initial weights, and on that of the teacher.\n" in text
    assert "teacher" not in model_card("model", CONFIG, CARD, FACTS, has_mlm_head=False)
    licensed = dataclasses.replace(facts, licence="MIT")
    assert "Not stated" not in model_card("model", CONFIG, CARD, licensed, has_mlm_head=False)


def test_the_model_card_shows_how_a_graph_is_run():
    card = dataclasses.replace(CARD, passage_prefix="passage: ")
    text = model_card("model", CONFIG, card, FACTS, has_mlm_head=False, has_onnx=True)
    assert f"encode('passage: a passage', '.', {card.passage_max_length})" in text
    assert "encoder.onnx" not in model_card("model", CONFIG, card, FACTS, has_mlm_head=False)


def test_the_model_card_says_whether_labels_were_learned_from():
    assert ") pre-trained with the objective" in model_card("m", CONFIG, CARD, FACTS, False)
    card = dataclasses.replace(CARD, is_fine_tuned=True)
    assert ") fine-tuned with the objective" in model_card("m", CONFIG, card, FACTS, False)
