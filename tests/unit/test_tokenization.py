"""A trained tokenizer is a BERT tokenizer, the same for the same text, known by its hash."""

import json
import shutil

import pytest
import tokenizers

from condenser_jax.data.tokenization import (
    encode,
    have_the_same_words,
    load_backend,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
    tokenizer_identity,
    train_wordpiece,
)
from condenser_jax.errors import UserError
from tests.unit.test_unmaskable import byte_level_bpe, wordpiece

TEXTS = ["The quick brown fox jumps over the lazy dog.", "A naïve tokenizer tokenizes tokens."] * 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return train_wordpiece(TEXTS, 120, tmp_path_factory.mktemp("tokenizer"), max_length=64)


def test_the_special_tokens_have_the_ids_of_the_contract(directory):
    tokenizer = load_tokenizer(directory)
    ids = tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    assert ids == [0, 1, 2, 3, 4]
    assert tokenizer.model_max_length == 64
    assert tokenizer("The fox")["input_ids"][0] == 2


def test_the_vocabulary_is_written_as_text_too(directory):
    lines = (directory / "vocab.txt").read_text("utf-8").splitlines()
    tokenizer = load_tokenizer(directory)
    assert lines[:2] == ["[PAD]", "[UNK]"]
    assert {piece: index for index, piece in enumerate(lines)} == tokenizer.get_vocab()


def test_the_same_texts_give_the_same_tokenizer(directory, tmp_path):
    train_wordpiece(TEXTS, 120, tmp_path, max_length=64)
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


def test_the_hash_survives_saving_and_tells_vocabularies_apart(directory, tmp_path):
    expected = tokenizer_hash(directory)
    assert tokenizer_hash(load_tokenizer(directory)) == expected
    save_tokenizer(directory, tmp_path / "copy")
    assert tokenizer_hash(tmp_path / "copy") == expected
    assert (tmp_path / "copy" / "vocab.txt").is_file()
    other = train_wordpiece(TEXTS, 70, tmp_path / "other", max_length=64)
    assert tokenizer_hash(other) != expected


def _merges_as_strings(folder):
    """As files of before 2024 have them, that of roberta-base among them."""
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["merges"] = [" ".join(pair) for pair in described["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(described))


def _another_processor(folder):
    described = json.loads((folder / "tokenizer.json").read_text())
    specials = {"sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    described["post_processor"] = {"type": "BertProcessing", **specials}
    (folder / "tokenizer.json").write_text(json.dumps(described))


def _no_type(folder):
    described = json.loads((folder / "tokenizer.json").read_text())
    del described["model"]["type"]
    (folder / "tokenizer.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (byte_level_bpe, _merges_as_strings),
        (wordpiece, _another_processor),
        (wordpiece, _no_type),
    ],
)
def test_a_tokenizer_in_the_words_of_an_older_version_has_the_hash_of_what_is_saved_of_it(
    make, change, tmp_path
):
    """A run keeps a copy of its tokenizer, and goes on with that."""
    given = tmp_path / "given"
    make(TEXTS * 9, given)
    before = (given / "tokenizer.json").read_text()
    change(given)
    assert (given / "tokenizer.json").read_text() != before
    save_tokenizer(given, tmp_path / "saved")
    assert tokenizer_hash(given) == tokenizer_hash(tmp_path / "saved")
    assert tokenizer_identity(given) == tokenizer_identity(tmp_path / "saved")
    assert have_the_same_words(given, tmp_path / "saved")
    other = train_wordpiece(["other words"] * 9, 70, tmp_path / "other", max_length=64)
    assert not have_the_same_words(given, other)


@pytest.mark.parametrize(
    "told", [{"model_input_names": ["input_ids", "attention_mask"]}, {"model_max_length": 7}]
)
def test_the_same_tokens_for_another_model_are_another_tokenizer(directory, tmp_path, told):
    save_tokenizer(directory, tmp_path / "copy")
    path = tmp_path / "copy" / "tokenizer_config.json"
    assert tokenizer_identity(tmp_path / "copy") == tokenizer_identity(directory)
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    assert tokenizer_identity(tmp_path / "copy") != tokenizer_identity(directory)
    assert tokenizer_hash(tmp_path / "copy") == tokenizer_hash(directory)


def test_a_saved_tokenizer_does_not_tell_how_it_was_loaded(directory, tmp_path, monkeypatch):
    """Hosts that prepare apart must write the same files, whether or not they see the hub."""
    import huggingface_hub.constants

    configs = []
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        save_tokenizer(directory, tmp_path / str(offline))
        configs.append((tmp_path / str(offline) / "tokenizer_config.json").read_text())
    assert configs[0] == configs[1] and "local" not in configs[0]


def test_a_saved_tokenizer_pads_and_cuts_by_itself_no_more(directory, tmp_path):
    """As all-MiniLM-L6-v2's does, to 128: who reads the file alone would take padding for words."""
    given = shutil.copytree(directory, tmp_path / "given")
    described = json.loads((given / "tokenizer.json").read_text())
    how = {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]", "pad_to_multiple_of": None}
    described["padding"] = {"strategy": {"Fixed": 32}, "direction": "Right", **how}
    described["truncation"] = {
        **{"max_length": 5, "stride": 0, "direction": "Right"},
        "strategy": "LongestFirst",
    }
    (given / "tokenizer.json").write_text(json.dumps(described))
    save_tokenizer(given, tmp_path / "saved")
    lengths = [
        len(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)
        for folder in (given, tmp_path / "saved")
        for text in ("the fox", TEXTS[0])
    ]
    assert lengths[:2] == [32, 32] and 2 < lengths[2] < 32 and lengths[3] > 5
    assert load_tokenizer(tmp_path / "saved").model_max_length == 64


def test_the_hash_does_not_see_truncation(directory):
    tokenizer = load_tokenizer(directory)
    tokenizer("The fox", truncation=True, max_length=4)
    assert tokenizer_hash(tokenizer) == tokenizer_hash(directory)


def test_the_backend_encodes_as_transformers_does(directory):
    tokenizer = load_tokenizer(directory)
    expected = tokenizer(TEXTS[:2], add_special_tokens=False)["input_ids"]
    assert encode(load_backend(directory), TEXTS[:2]) == expected


def test_a_missing_tokenizer_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no tokenizer at '.*nowhere': expected a directory with"):
        load_tokenizer(tmp_path / "nowhere")


def test_nothing_can_be_trained_on_nothing(tmp_path):
    with pytest.raises(UserError, match="the source has no text"):
        train_wordpiece([], 120, tmp_path, 64)
    with pytest.raises(
        UserError, match="vocab_size 10 is too small for a WordPiece; use 64 or more"
    ):
        train_wordpiece(TEXTS, 10, tmp_path, 64)


def test_a_word_of_a_million_characters_does_not_hold_up_training(tmp_path):
    plain = train_wordpiece(TEXTS, 120, tmp_path / "plain", max_length=64)
    junk = train_wordpiece([*TEXTS, "x" * 1_000_000], 120, tmp_path / "junk", max_length=64)
    assert (junk / "vocab.txt").read_text("utf-8") == (plain / "vocab.txt").read_text("utf-8")
