"""Rows in which masking finds no word are measured, and warned of where they are many."""

import logging

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from condenser_jax.data.masking import TOKENS
from condenser_jax.data.masking import WORDS as WHOLE_WORDS
from condenser_jax.data.tokenization import train_wordpiece
from condenser_jax.data.unmaskable import unmaskable_share
from condenser_jax.feeds.corpus import DataConfig, prepare_corpus
from tests.memory_spans import VOCABULARY, MemorySpans

ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
WORDS = "the small encoder reads a long text and learns which words were masked in it".split()
CHINESE = [chr(0x4E00 + i) for i in range(30)]


def byte_level_bpe(texts, directory):
    """A tokenizer of RoBERTa's family."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = list(ROBERTA.values())
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    names = {f"{role}_token": token for role, token in ROBERTA.items()}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(directory)


def wordpiece(texts, directory):
    train_wordpiece(texts, 200, directory, 32)


@pytest.fixture
def warnings_on(tmp_path, caplog):
    """(tokenizer's maker, documents of Chinese among 200) -> what a run is warned of."""
    rng = np.random.default_rng(0)
    english = [" ".join(rng.choice(WORDS, 12)) for _ in range(200)]
    chinese = ["".join(rng.choice(CHINESE, 20)) for _ in range(200)]

    def prepare(make, number, masking=WHOLE_WORDS):
        texts = chinese[:number] + english[number:]
        (tmp_path / "a.txt").write_text("\n".join(texts))
        make(texts, tmp_path / "tokenizer")
        config = DataConfig(
            source=f"text:{tmp_path}/a.txt",
            directory=str(tmp_path),
            tokenizer=str(tmp_path / "tokenizer"),
            recipe="paragraphs",
            max_length=32,
            heldout_share=0.0,
            workers=1,
        )
        with caplog.at_level(logging.WARNING, "condenser_jax"):
            prepare_corpus(config, 0, config.tokenizer, masking)
        return [one.message for one in caplog.records if "MASKED" in one.message]

    return prepare


def test_the_share_counts_rows_whose_every_word_is_over_the_budget():
    ids = np.arange(5, 1000)
    word = ids[VOCABULARY.continues_word[ids]]
    spans = MemorySpans([8] * 4)
    spans.ids[8:16] = word[:8]  # one word of eight tokens
    assert unmaskable_share(spans, VOCABULARY, 12, 0.3, 0) == 0.25
    assert unmaskable_share(spans, VOCABULARY, 12, 1.0, 0) == 0.0


def test_where_single_tokens_are_masked_there_is_nothing_to_warn_of(warnings_on):
    assert not warnings_on(byte_level_bpe, 50, TOKENS)


def test_text_without_spaces_under_a_byte_level_bpe_is_warned_of_with_share_and_remedy(warnings_on):
    (message,) = warnings_on(byte_level_bpe, 50)
    assert message.startswith("NOTHING CAN BE MASKED IN 25.0 % OF THE ROWS of text:")
    assert "(data.mask_rate 0.15)" in message
    assert "use a WordPiece (a BERT's; without model.init data.tokenizer='' trains one)" in message


@pytest.mark.parametrize("make, number", [(wordpiece, 200), (byte_level_bpe, 0)])
def test_words_that_can_be_masked_are_not_warned_of(warnings_on, make, number):
    assert warnings_on(make, number) == []
