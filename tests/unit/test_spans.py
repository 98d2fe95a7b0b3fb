"""Recipes partition a document's tokens, and depend on (seed, document) alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from condenser_jax.data.spans import (
    RECIPES,
    SpanOptions,
    cut_spans,
    split_paragraphs,
    split_sentences,
    uniform,
)
from condenser_jax.data.tokenization import encode, load_backend
from condenser_jax.errors import UserError
from tests.unit.test_unmaskable import byte_level_bpe

LENGTHS = st.lists(st.integers(0, 60), max_size=40)


def options(recipe="sentences", max_length=32, short_probability=0.0, seed=0):
    return SpanOptions(recipe, max_length, short_probability, seed)


@given(LENGTHS, st.sampled_from(sorted(RECIPES)), st.integers(0, 10**6))
def test_spans_partition_the_tokens(lengths, recipe, document):
    spans = cut_spans(lengths, options(recipe, short_probability=0.3), document)
    assert sum(spans) == sum(lengths)
    assert all(span > 0 for span in spans)


@given(LENGTHS)
def test_a_sentence_is_never_cut(lengths):
    ends = {sum(lengths[: i + 1]) for i in range(len(lengths))}
    spans = cut_spans(lengths, options(short_probability=0.5), document=7)
    assert {sum(spans[: i + 1]) for i in range(len(spans))} <= ends


def test_sentences_are_packed_greedily_to_the_body():
    assert cut_spans([10, 10, 10, 1, 29, 2, 30], options(), 0) == [30, 30, 2, 30]


def test_a_sentence_longer_than_the_body_is_a_span_of_its_own():
    assert cut_spans([5, 50, 5], options(), 0) == [5, 50, 5]


def test_an_endless_sentence_is_split_evenly():
    assert cut_spans([1000], options(), 0) == [250, 250, 250, 250]


def test_a_tenth_of_the_blocks_has_a_shorter_target():
    full = cut_spans([1] * 30_000, options(), 0)
    spans = cut_spans([1] * 30_000, options(short_probability=0.1), 0)
    assert set(full) == {30}
    share = sum(span < 30 for span in spans) / len(spans)
    assert 0.07 < share < 0.13
    short = [span for span in spans if span < 30]
    assert min(short) <= 3 and max(short) >= 28


def test_cuts_depend_on_the_seed_and_the_document():
    first = cut_spans([1] * 3000, options(short_probability=0.5), 3)
    assert first == cut_spans([1] * 3000, options(short_probability=0.5), 3)
    assert first != cut_spans([1] * 3000, options(short_probability=0.5), 4)
    assert first != cut_spans([1] * 3000, options(short_probability=0.5, seed=1), 3)


def test_fixed_windows_fill_the_body():
    assert cut_spans([7, 60], options("fixed"), 0) == [30, 30, 7]


@pytest.mark.parametrize(
    "size, spans", [(1, [7, 60, 5, 9]), (2, [67, 14]), (3, [72, 9]), (9, [81])]
)
def test_a_sentence_group_has_a_fixed_number_of_sentences_however_long(size, spans):
    groups = SpanOptions("sentence_groups", 32, sentences_per_span=size)
    assert cut_spans([7, 60, 5, 9], groups, 0) == spans


def test_paragraphs_stay_as_they_are():
    assert cut_spans([7, 0, 60], options("paragraphs"), 0) == [7, 60]


def test_draws_are_uniform():
    draws = [uniform(0, i) for i in range(4000)]
    assert 0 <= min(draws) and max(draws) < 1
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02


def test_paragraphs_are_separated_by_blank_lines():
    assert split_paragraphs("one\ntwo\n \n\nthree\n") == ["one two", "three"]


def test_abbreviations_do_not_end_a_sentence():
    text = "Dr. Smith came (e.g. by rail). He left.\n\nNew paragraph"
    found = [sentence.strip() for sentence in split_sentences(text)]
    assert found == ["Dr. Smith came (e.g. by rail).", "He left.", "New paragraph"]


@pytest.mark.parametrize(
    "text",
    [
        "Hello world. How are you? I am fine.",
        "One sentence.\n\nA paragraph. And more of it.\nOn another line.",
        "今天天气很好。我们去公园吧。他也来。",
        "  Blanks around.   And within.  ",
    ],
)
def test_sentences_together_are_the_tokens_of_the_text(text, tmp_path):
    """To a byte-level BPE the blank before a word is a part of it."""
    byte_level_bpe(["hello world how are you"] * 9, tmp_path)
    backend = load_backend(tmp_path)
    apart = sum(encode(backend, split_sentences(text)), [])
    assert apart == encode(backend, [" ".join(text.split())])[0]
    assert len(split_sentences(text)) > 1


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match="unknown recipe 'sentence'; did you mean 'sentences'"):
        options("sentence")
    with pytest.raises(UserError, match="max_length 2 leaves no room for text; use 3 or more"):
        options(max_length=2)
    with pytest.raises(UserError, match="short_probability 1.5 is not within 0 and 1"):
        options(short_probability=1.5)
    with pytest.raises(UserError, match="sentences_per_span is 0; expected at least 1"):
        SpanOptions("sentence_groups", sentences_per_span=0)
