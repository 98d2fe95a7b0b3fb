"""A trained tokenizer is a BERT tokenizer, the same for the same text, known by its hash."""

import pytest

from condenser_jax.data.tokenization import (
    encode,
    load_backend,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
    train_wordpiece,
)
from condenser_jax.errors import UserError

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


def test_a_saved_tokenizer_does_not_tell_how_it_was_loaded(directory, tmp_path, monkeypatch):
    """Hosts that prepare apart must write the same files, whether or not they see the hub."""
    import huggingface_hub.constants

    configs = []
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        save_tokenizer(directory, tmp_path / str(offline))
        configs.append((tmp_path / str(offline) / "tokenizer_config.json").read_text())
    assert configs[0] == configs[1] and "local" not in configs[0]


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
