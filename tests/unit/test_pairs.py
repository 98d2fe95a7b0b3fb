"""Texts and pairs become the tokens that transformers would make of them, and batches of these."""

import json
import shutil

import numpy as np
import pytest

from condenser_jax.data.labelled_batches import EncodedTexts, LabelledBatches, all_rows
from condenser_jax.data.tokenization import train_wordpiece
from condenser_jax.errors import UserError
from condenser_jax.feeds.pairs import encode_pairs
from condenser_jax.feeds.tokens import Tokens

WORDS = "the cat sat on a mat while it rained all day long".split()
FIRST = ["the cat sat", "the cat sat on a mat while it rained all day long", "rained"]
SECOND = ["it rained", "all day", "the cat sat on a mat while it rained all day long"]
LENGTH = 12


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    where = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece([" ".join(WORDS)] * 20, 80, where, 64)
    return Tokens.load(where)


@pytest.mark.parametrize("texts", [(FIRST,), (FIRST, SECOND)], ids=["single", "pairs"])
def test_they_are_the_tokens_of_transformers(tokens, texts):
    encoded = encode_pairs(tokens, texts, LENGTH, "train")
    rows = encoded.rows(np.arange(len(FIRST)), LENGTH, tokens.vocabulary.pad_id)
    theirs = tokens.tokenizer(
        *texts, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="np"
    )
    assert set(rows) == {"input_ids", "attention_mask", "token_type_ids"}
    for name, values in rows.items():
        np.testing.assert_array_equal(values, theirs[name])


def test_the_second_text_has_token_type_1_and_the_longer_one_is_cut_first(tokens, caplog):
    caplog.set_level("INFO")
    encoded = encode_pairs(tokens, (FIRST, SECOND), LENGTH, "train")
    rows = encoded.rows(np.arange(3), LENGTH, tokens.vocabulary.pad_id)
    read = [tokens.tokenizer.convert_ids_to_tokens(ids) for ids in rows["input_ids"]]
    assert " ".join(read[1]) == "[CLS] the cat sat on a mat while [SEP] all day [SEP]"
    assert rows["token_type_ids"][1].tolist() == [0] * 9 + [1] * 3
    assert rows["attention_mask"][0].tolist() == [1] * 8 + [0] * 4
    assert rows["token_type_ids"][0].tolist() == [0] * 5 + [1] * 3 + [0] * 4
    assert "data: 2 of 3 texts of train are cut to 12" in caplog.text


def test_the_same_tokens_for_a_model_without_token_types_do_not_take_them_from_another(
    tokens, tmp_path
):
    """As an exported RoBERTa with BERT's tokenizer has it; both go by what lies in the cache."""
    shutil.copytree(tokens.directory, tmp_path / "bare")
    path = tmp_path / "bare" / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | names))
    texts = ["of two", "models"], ["the second", "text"]
    bare = encode_pairs(Tokens.load(tmp_path / "bare"), texts, LENGTH, "train")
    again = encode_pairs(Tokens.load(tokens.directory), texts, LENGTH, "train")
    assert not bare.token_types.any() and again.token_types.any()
    np.testing.assert_array_equal(bare.ids, again.ids)


def test_a_tokenizer_without_a_template_is_refused(tokens, monkeypatch):
    import tokenizers

    bare = tokenizers.Tokenizer.from_str(tokens.tokenizer.backend_tokenizer.to_str())
    bare.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B")

    class Bare:
        backend_tokenizer, model_input_names, model_max_length = bare, (), 64

    with pytest.raises(UserError, match="puts no CLS in front of a text: .* has no template; use"):
        encode_pairs(tokens._replace(tokenizer=Bare()), (["day"],), LENGTH, "train")


def _encoded(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1])
    return EncodedTexts(ids, np.zeros(len(ids), np.uint8), offsets)


def test_every_epoch_visits_every_text_once_with_its_label():
    lengths = np.arange(2, 12)
    batches = LabelledBatches(_encoded(lengths), np.arange(10), 4, 12, 0, seed=3)
    assert batches.steps_per_epoch == 3
    rows = [batches.batch(step) for step in range(5)]
    labels = np.concatenate([row["labels"] for row in rows])
    assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))
    assert labels[:10].tolist() != labels[10:].tolist()
    for row in rows:
        np.testing.assert_array_equal(row["attention_mask"].sum(1), lengths[row["labels"]])
    some = batches.batch(1, np.array([2, 0]))
    np.testing.assert_array_equal(some["input_ids"], rows[1]["input_ids"][[2, 0]])


def test_scores_stay_numbers():
    batches = LabelledBatches(_encoded([3, 3]), np.array([0.25, 4.5]), 2, 4, 0, seed=0)
    assert batches.batch(0)["labels"].dtype == np.float32
    assert LabelledBatches(_encoded([3]), np.array([1]), 1, 4, 0, 0).batch(0)["labels"].dtype == (
        np.int32
    )


def test_all_rows_come_in_their_order_and_the_last_batch_is_filled_up():
    batches = all_rows(_encoded([2, 3, 4]), 2, 4, pad_id=9)
    assert [b["attention_mask"].sum(1).tolist() for b in batches] == [[2, 3], [4, 2]]
    assert batches[0]["input_ids"].tolist() == [[0, 1, 9, 9], [2, 3, 4, 9]]
