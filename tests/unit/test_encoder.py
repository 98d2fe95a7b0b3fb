"""`Encoder`: in buckets as one by one, as its card says, from whatever directory; or one line."""

import json
import shutil
import subprocess
import sys
import types

import huggingface_hub
import jax
import numpy as np
import pytest

import condenser_jax
from condenser_jax import Encoder
from condenser_jax.data.tokenization import load_tokenizer, tokenizer_hash
from condenser_jax.encoder_source import read_source, untold
from condenser_jax.errors import UserError
from condenser_jax.hf.card import CARD_FILE
from condenser_jax.hf.load import find_directory
from tests.encoders import TEXTS, export_tiny

SMALL = 320  # tokens of a batch: several batches of every length


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Mean pooling, of which every token of a text is a part."""
    return export_tiny(tmp_path_factory.mktemp("mean"), pooling="mean")


@pytest.fixture(scope="module")
def encoder(directory):
    return Encoder.load(directory, tokens_per_batch=SMALL)


@pytest.fixture(scope="module")
def vectors(encoder):
    return encoder.encode(TEXTS)


def changed(directory, folder, **fields):
    """A copy of an exported directory with another card."""
    copy = shutil.copytree(directory, folder / "copy")
    card = json.loads((copy / CARD_FILE).read_text())
    (copy / CARD_FILE).write_text(json.dumps(card | fields))
    return copy


def without_card(directory, folder, *others):
    copy = shutil.copytree(directory, folder / "copy")
    for name in (CARD_FILE, *others):
        (copy / name).unlink()
    return copy


def test_texts_in_buckets_have_the_vectors_that_they_have_one_by_one(encoder, vectors):
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert vectors.shape == (len(TEXTS), encoder.width) and vectors.dtype == np.float32
    assert np.abs(vectors - alone).max() < 1e-5
    assert np.abs(vectors - np.roll(alone, 1, axis=0)).max() > 0.1


def test_a_long_text_counts_as_its_beginning(encoder, vectors):
    longest = max(TEXTS, key=len)
    assert len(longest.split()) == 44
    cut = " ".join(longest.split()[:34])  # and two special tokens
    assert np.abs(encoder.encode([cut]) - vectors[TEXTS.index(longest)]).max() < 1e-5
    assert np.abs(encoder.encode([cut[:-4]]) - vectors[TEXTS.index(longest)]).max() > 1e-3


def test_prefixes_lengths_and_normalisation_are_those_of_the_card(directory, vectors, tmp_path):
    copy = changed(directory, tmp_path, query_prefix="one text ", normalize=True)
    other = Encoder.load(copy)
    short = [text for text in TEXTS if len(text.split()) < 10]
    plain = vectors[[TEXTS.index(text) for text in short]]
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.abs(other.encode(short) - unit).max() < 1e-5
    queries = other.encode(short, "query")
    assert np.abs(queries - other.encode([f"one text {text}" for text in short])).max() < 1e-5
    assert np.abs(queries - unit).max() > 1e-2


def test_queries_of_an_untied_encoder_have_weights_of_their_own(encoder, directory, tmp_path):
    other = Encoder.load(export_tiny(tmp_path, seed=1, pooling="mean"))
    passage, query = (one.source.params["backbone"] for one in (encoder, other))
    untied = {"backbone": passage, "query_backbone": query}
    both = Encoder(encoder.source._replace(params=untied), encoder.card)
    texts = TEXTS[:4]
    np.testing.assert_array_equal(both.encode(texts), encoder.encode(texts))
    np.testing.assert_array_equal(both.encode(texts, "query"), other.encode(texts, "query"))
    assert len({encoder.weights_hash, other.weights_hash, both.weights_hash}) == 3


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """(directory) -> None: what the hub holds under every id, of which it sends what is asked."""
    held, patterns = [], []

    def download(hub_id, allow_patterns):
        (source,) = held
        patterns.append(allow_patterns)
        files = [str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()]
        for name in huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow_patterns):
            (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, tmp_path / "snapshot" / name)
        return tmp_path / "snapshot"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return types.SimpleNamespace(hold=held.append, patterns=patterns)


def test_both_encoders_of_an_untied_export_come_from_the_hub(hub, tmp_path):
    directory = export_tiny(tmp_path, queries_seed=1)
    hub.hold(directory)
    found, here = read_source("me/untied"), read_source(str(directory))
    assert found.params.keys() == {"backbone", "query_backbone"}
    jax.tree.map(np.testing.assert_array_equal, found.params, here.params)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_a_folder_of_old_sentence_transformers_come_from_the_hub(
    hub, directory, tmp_path, weights
):
    repository, inner = tmp_path / "old", tmp_path / "old" / "0_Transformer"
    shutil.copytree(directory / "1_Pooling", repository / "1_Pooling")
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory / name, inner)
    shutil.copy(directory / "model.safetensors", inner / weights)
    listed = json.loads((directory / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (repository / "modules.json").write_text(json.dumps(listed))
    hub.hold(repository)
    snapshot = find_directory("sentence-transformers/old")
    assert (snapshot / "0_Transformer" / weights).is_file()
    assert len(hub.patterns) == (2 if weights.endswith(".bin") else 1)  # .bin only where need be
    if weights == "model.safetensors":
        assert read_source("sentence-transformers/old").params.keys() == {"backbone"}


def test_search_finds_the_best_texts_with_their_places(encoder, vectors):
    scores = encoder.encode(TEXTS[:3], "query") @ vectors.T
    hits = encoder.search(TEXTS[:3], TEXTS, k=5)
    assert hits.ids.shape == (3, 5)
    np.testing.assert_allclose(hits.scores, -np.sort(-scores, axis=1)[:, :5], rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(scores, hits.ids, axis=1), hits.scores, rtol=1e-5)
    assert encoder.search(TEXTS[:3], TEXTS[:2], k=5).ids.shape == (3, 2)


def test_no_texts_have_no_vectors_and_one_text_is_not_a_list(encoder):
    assert encoder.encode([]).shape == (0, encoder.width)
    with pytest.raises(UserError, match=r"expected a list of texts, not the one text 'a text'"):
        encoder.encode("a text")
    with pytest.raises(UserError, match="unknown kind of text 'document'"):
        encoder.encode(["a"], "document")


def test_sentence_transformers_modules_say_what_our_card_says(directory, vectors, tmp_path):
    copy = without_card(directory, tmp_path)
    card = Encoder.load(copy).card
    assert (card.pooling, card.normalize, card.passage_max_length) == ("mean", False, 36)
    assert np.abs(Encoder.load(copy).encode(TEXTS[:9]) - vectors[:9]).max() < 1e-6


def test_prompts_and_lengths_of_sentence_transformers_are_read(directory, tmp_path):
    copy = without_card(directory, tmp_path)
    prompts = {"query": "find: ", "document": "", "passage": "text: "}
    usage = json.dumps({"prompts": prompts, "default_prompt_name": None})
    (copy / "config_sentence_transformers.json").write_text(usage)
    (copy / "sentence_bert_config.json").write_text('{"query_length": 7}')
    (copy / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    card = Encoder.load(copy).card
    assert (card.query_prefix, card.passage_prefix) == ("find: ", "text: ")
    assert (card.query_max_length, card.passage_max_length) == (7, 40)  # of the tokenizer
    assert card.pooling == "cls"


@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}, {"type": "Lowercase"}])
@pytest.mark.parametrize("lowercases", [True, False])
def test_texts_lose_their_capitals_where_sentence_transformers_says_so(
    directory, tmp_path, normalizer, lowercases
):
    copy = without_card(directory, tmp_path)
    tokenizer = json.loads((copy / "tokenizer.json").read_text()) | {"normalizer": normalizer}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    (copy / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lowercases}))
    read = read_source(str(copy)).tokenizer
    small, capitals = (read.encode(text) for text in ("a small condenser", "A SMALL Condenser"))
    is_uncased = normalizer == {"type": "Lowercase"}
    assert (small == capitals) == (lowercases or is_uncased)
    is_as_saved = tokenizer_hash(read) == tokenizer_hash(load_tokenizer(copy))
    assert is_as_saved == (is_uncased or not lowercases)


def test_the_length_that_sentence_transformers_states_is_more_than_that_of_the_tokenizer(
    directory, tmp_path
):
    copy = without_card(directory, tmp_path)
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 12}))
    for stated, length in ((30, 30), (None, 12), (10**6, read_source(str(copy)).config.max_length)):
        settings = {} if stated is None else {"max_seq_length": stated}
        (copy / "sentence_bert_config.json").write_text(json.dumps(settings))
        assert Encoder.load(copy).card.passage_max_length == length


@pytest.mark.parametrize(("similarity", "warnings"), [("cosine", 1), (None, 1), ("dot", 0)])
def test_cosines_of_vectors_that_are_not_normalised_are_warned_of(
    directory, tmp_path, caplog, similarity, warnings
):
    copy = without_card(directory, tmp_path)
    usage = json.dumps({"similarity_fn_name": similarity})
    (copy / "config_sentence_transformers.json").write_text(usage)
    Encoder.load(copy)
    assert caplog.text.count("BY DOT PRODUCT, NOT BY COSINE") == warnings


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "modules.json",
            [["", "Transformer"], ["1_Pooling", "Pooling"], ["2_Dense", "Dense"]],
            "has a module Dense; expected Transformer, Pooling and perhaps Normalize, in this",
        ),
        ("modules.json", [["", "Transformer"]], "has the modules Transformer; expected"),
        ("modules.json", "[{}]", r"lists no modules \(KeyError\('type'\)\); copy the model again"),
        (
            "1_Pooling/config.json",
            '{"pooling_mode_max_tokens": true, "pooling_mode_cls_token": true}',
            "pools by max_tokens and cls; expected one of cls, mean: choose an encoder",
        ),
        ("1_Pooling/config.json", '{"pooling_mode": "lasttoken"}', "pools by lasttoken; expected"),
        (
            "1_Pooling/config.json",
            '{"pooling_mode": "mean", "include_prompt": false}',
            "leaves the prompt out of the mean",
        ),
    ],
)
def test_other_modules_and_poolings_are_refused(directory, tmp_path, file, content, message):
    copy = without_card(directory, tmp_path)
    if not isinstance(content, str):
        content = json.dumps(
            [{"path": p, "type": f"sentence_transformers.{t}"} for p, t in content]
        )
    (copy / file).write_text(content)
    with pytest.raises(UserError, match=message):
        Encoder.load(copy)


def test_a_directory_that_does_not_say_how_it_pools_needs_to_be_told(directory, tmp_path, vectors):
    copy = without_card(directory, tmp_path, "modules.json")
    with pytest.raises(UserError, match=r"nothing at .* says how this encoder pools .*cls for"):
        Encoder.load(copy)
    mean = Encoder.load(copy, pooling="mean")
    assert mean.card.passage_max_length == 40
    short = [text for text in TEXTS if len(text.split()) < 10]
    expected = vectors[[TEXTS.index(text) for text in short]]
    assert np.abs(mean.encode(short) - expected).max() < 1e-5
    assert np.abs(Encoder.load(copy, pooling="cls").encode(short) - expected).max() > 0.1
    with pytest.raises(UserError, match="unknown pooling 'max'"):
        Encoder.load(copy, pooling="max")


def test_a_pooling_that_contradicts_the_card_is_refused(directory):
    assert Encoder.load(directory, pooling="mean").card.pooling == "mean"
    with pytest.raises(
        UserError, match="pooling 'cls' was asked for, but the card of .* says 'mean'"
    ):
        Encoder.load(directory, pooling="cls")


def test_prefixes_are_told_where_sentence_transformers_names_none(directory, tmp_path):
    copy = without_card(directory, tmp_path)
    prompts = {"query": "", "document": "text: "}  # "": as version 6 writes it where there is none
    usage = json.dumps({"prompts": prompts})
    (copy / "config_sentence_transformers.json").write_text(usage)
    assert untold(str(copy)) == {"query_prefix"}
    told = Encoder.load(copy, query_prefix="find: ", passage_prefix="text: ")
    assert (told.card.query_prefix, told.card.passage_prefix) == ("find: ", "text: ")
    plain = Encoder.load(copy)
    with_prefix = plain.encode(["find: " + text for text in TEXTS[:3]], "query")
    np.testing.assert_array_equal(told.encode(TEXTS[:3], "query"), with_prefix)
    assert np.abs(with_prefix - plain.encode(TEXTS[:3], "query")).max() > 1e-3
    with pytest.raises(UserError, match="passage_prefix 'a' was asked for, .* says 'text: '; leav"):
        Encoder.load(copy, passage_prefix="a")
    with pytest.raises(UserError, match="query_prefix 'a' was asked for, .* says ''; leave the ch"):
        Encoder.load(directory, query_prefix="a")  # our card says everything


def test_another_tokenizer_than_that_of_the_card_is_refused(directory, tmp_path, encoder):
    own = encoder.described()["tokenizer_hash"]
    copy = changed(directory, tmp_path, tokenizer_hash=own)
    Encoder.load(copy)
    tokenizer = (copy / "tokenizer.json").read_text().replace("condenser", "condensers")
    (copy / "tokenizer.json").write_text(tokenizer)
    with pytest.raises(UserError, match=f"is not the one that its card names .*not {own[:8]}"):
        Encoder.load(copy)


@pytest.mark.parametrize("length", [2, 41])
def test_lengths_that_the_model_cannot_have_are_refused(directory, tmp_path, length):
    copy = changed(directory, tmp_path, query_max_length=length)
    with pytest.raises(UserError, match=f"query_max_length {length}; expected 3 to 40"):
        Encoder.load(copy)


def test_a_tokenizer_without_the_special_tokens_of_an_encoder_is_refused(directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "copy")
    fields = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in fields.items() if name != "cls_token"})
    )
    with pytest.raises(UserError, match="has no cls token; expected that of a BERT or RoBERTa enc"):
        Encoder.load(copy)


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is neither a work directory nor a Hugging Face directory"):
        Encoder.load(tmp_path)
    with pytest.raises(UserError, match="is neither a directory here nor a hub id"):
        Encoder.load("nobody/nothing")


def test_the_hash_of_the_weights_does_not_see_the_padding_of_the_vocabulary(encoder, directory):
    source = read_source(str(directory))
    word = source.params["backbone"]["embeddings"]["word"]["embedding"]
    word[source.config.vocab_size :] = 5.0
    assert Encoder(source, encoder.card).weights_hash == encoder.weights_hash
    word[0, 0] += 1e-3
    assert Encoder(source, encoder.card).weights_hash != encoder.weights_hash


def test_the_package_is_imported_without_jax_until_the_encoder_is_asked_for():
    script = "import sys, condenser_jax; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'Encode'"):
        _ = condenser_jax.Encode
