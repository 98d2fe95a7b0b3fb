"""A tokenizer's special ids and the words of its tokens, for both families."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from condenser_jax.data.masking import mask_batch
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError

TEXT = ["tokenization of retrieval text", "the retriever retrieves tokens", "pretraining the text"]
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def wrap(backend, specials):
    from transformers import PreTrainedTokenizerFast

    names = {f"{role}_token": token for role, token in specials.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.fixture(scope="module")
def wordpiece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=60, special_tokens=list(BERT.values()), show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return wrap(backend, BERT)


def byte_level_bpe():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=list(ROBERTA.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


@pytest.fixture(scope="module")
def roberta():
    return wrap(byte_level_bpe(), ROBERTA)


@pytest.mark.parametrize("family, specials", [("wordpiece", BERT), ("roberta", ROBERTA)])
def test_special_ids_are_the_tokenizers_own(family, specials, request):
    tokenizer = request.getfixturevalue(family)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    for role, token in specials.items():
        assert getattr(vocabulary, f"{role}_id") == tokenizer.convert_tokens_to_ids(token)
    assert sorted(tokenizer.convert_tokens_to_ids(list(specials.values()))) == list(
        vocabulary.special_ids
    )


@pytest.mark.parametrize("family", ["wordpiece", "roberta"])
def test_every_id_is_either_special_or_replaceable(family, request):
    tokenizer = request.getfixturevalue(family)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    both = np.concatenate([vocabulary.special_ids, vocabulary.replaceable_ids])
    assert sorted(both) == list(range(len(tokenizer))) and vocabulary.size == len(tokenizer)


def test_wordpieces_with_the_prefix_continue_a_word(wordpiece):
    vocabulary = Vocabulary.from_tokenizer(wordpiece)
    tokens = wordpiece.convert_ids_to_tokens(range(vocabulary.size))
    assert any(vocabulary.continues_word)
    for token, continues in zip(tokens, vocabulary.continues_word, strict=True):
        assert continues == token.startswith("##")


def test_byte_level_tokens_without_a_space_continue_a_word(roberta):
    vocabulary = Vocabulary.from_tokenizer(roberta)
    ids = roberta("the pretraining", add_special_tokens=False)["input_ids"]
    tokens = roberta.convert_ids_to_tokens(ids)
    continues = [not token.startswith("Ġ") for token in tokens]
    assert vocabulary.continues_word[ids].tolist() == continues and sum(continues) > 2
    assert not vocabulary.continues_word[vocabulary.special_ids].any()


def masked_words(tokenizer, vocabulary, text):
    """The masked tokens of `text`, as sets of positions, over many keys."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    row = np.array([vocabulary.cls_id, *ids, vocabulary.sep_id], np.int32)
    rows = np.tile(row, (200, 1))
    batch = mask_batch(rows, np.ones_like(rows), vocabulary, 0.5, np.arange(200))
    return [
        set(positions[weights > 0].tolist())
        for positions, weights in zip(
            batch["masked_positions"], batch["masked_weights"], strict=True
        )
    ]


def test_roberta_keeps_whole_word_masking(roberta):
    """The public code groups by `##` whatever the tokenizer: every byte-level token is a word."""
    text = "the pretraining of retrievers"
    vocabulary = Vocabulary.from_tokenizer(roberta)
    tokens = roberta.tokenize(text)
    starts = [i for i, token in enumerate(tokens) if i == 0 or token.startswith("Ġ")]
    ends = [*starts[1:], len(tokens)]
    words = [set(range(a + 1, b + 1)) for a, b in zip(starts, ends, strict=True)]
    assert max(map(len, words)) > 2

    def is_whole(masked):
        return all(word <= masked or not word & masked for word in words)

    assert all(is_whole(masked) for masked in masked_words(roberta, vocabulary, text))
    by_bert_rule = np.array(
        [token.startswith("##") for token in roberta.convert_ids_to_tokens(range(vocabulary.size))]
    )
    as_the_public_code = dataclasses.replace(vocabulary, continues_word=by_bert_rule)
    assert not all(is_whole(m) for m in masked_words(roberta, as_the_public_code, text))


def test_a_tokenizer_without_a_mask_token_is_refused():
    tokenizer = wrap(byte_level_bpe(), {k: v for k, v in ROBERTA.items() if k != "mask"})
    with pytest.raises(UserError, match=r"has no mask token.*add_special_tokens\(\{'mask_token'"):
        Vocabulary.from_tokenizer(tokenizer)


def test_a_tokenizer_of_another_family_is_refused():
    pieces = [(token, -1.0) for token in ["<unk>", *ROBERTA.values(), "▁the", "▁text"]]
    tokenizer = wrap(Tokenizer(models.Unigram(pieces, unk_id=0)), ROBERTA)
    with pytest.raises(UserError, match=r"\(Unigram\); expected WordPiece.*or byte-level BPE"):
        Vocabulary.from_tokenizer(tokenizer)


def test_a_bpe_that_is_not_byte_level_is_refused():
    backend = byte_level_bpe()
    backend.decoder = decoders.BPEDecoder()
    with pytest.raises(UserError, match=r"\(BPE\); expected WordPiece"):
        Vocabulary.from_tokenizer(wrap(backend, ROBERTA))
