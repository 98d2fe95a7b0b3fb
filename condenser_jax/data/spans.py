"""From a document to spans of tokens: the named recipes.

A recipe says what pieces a document falls into (sentences, paragraphs, or the whole) and how runs
of pieces become spans. Spans partition the document's tokens in order, so a recipe only has to
give lengths, and it is a pure function of (lengths of the pieces, seed, index of the document).

Sentences come from `sentencex` (Rust, rules for abbreviations, downloads nothing): 116 MB/s on one
core, so that it never matters beside the tokenizer's 4 MB/s.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from condenser_jax.errors import UserError, choose

SPECIALS_PER_SPAN = 2  # [CLS] and [SEP]
MAX_LENGTHS_PER_SPAN = 8  # a piece (a table, a minified file) above 8 * max_length is split


@dataclass(frozen=True)
class SpanOptions:
    """How documents are cut; lengths are in tokens, `max_length` with [CLS] and [SEP]."""

    recipe: str = "sentences"
    max_length: int = 128
    short_probability: float = 0.1  # sentences: how often a block gets a shorter target
    seed: int = 0
    sentences_per_span: int = 3  # sentence_groups

    def __post_init__(self) -> None:
        choose("recipe", self.recipe, RECIPES)
        if self.max_length < SPECIALS_PER_SPAN + 1:
            raise UserError(f"max_length {self.max_length} leaves no room for text; use 3 or more")
        if not 0 <= self.short_probability <= 1:
            raise UserError(f"short_probability {self.short_probability:g} is not within 0 and 1")
        if self.sentences_per_span < 1:
            raise UserError(f"sentences_per_span is {self.sentences_per_span}; expected at least 1")

    @property
    def body(self) -> int:
        """The tokens of text that fit beside [CLS] and [SEP]."""
        return self.max_length - SPECIALS_PER_SPAN


def uniform(*words: int) -> float:
    """Returns a number in [0, 1) that is a function of the words alone."""
    digest = hashlib.blake2b(struct.pack(f"<{len(words)}q", *words), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def split_paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of a text, which blank lines separate."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return [" ".join(lines) for lines in found if lines]


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a text; a sentence never crosses a paragraph.

    The blank between two of them stands before the second, for to a byte-level BPE it is a part of
    the word that follows: together they are the tokens of the text.
    """
    import sentencex

    found: list[str] = []
    blank = ""
    for paragraph in split_paragraphs(text):
        for sentence in sentencex.segment("en", paragraph):
            if sentence.strip():
                found.append(blank + sentence.strip())
                blank = " " if sentence != sentence.rstrip() else ""
        blank = " " if found else ""
    return found


def split_nothing(text: str) -> list[str]:
    """Returns the text as its only piece."""
    return [text] if text.strip() else []


def _targets(options: SpanOptions, document: int) -> Iterator[int]:
    """Yields the target length of every block: the body, or with `short_probability` uniform in
    [1, body].
    """
    block = 0
    while True:
        if uniform(options.seed, document, block, 0) < options.short_probability:
            yield 1 + int(uniform(options.seed, document, block, 1) * options.body)
        else:
            yield options.body
        block += 1


def pack_sentences(lengths: Sequence[int], options: SpanOptions, document: int) -> list[int]:
    """Packs whole sentences greedily into blocks; a sentence longer than its target is a span of
    its own.
    """
    targets = _targets(options, document)
    spans: list[int] = []
    filled, target = 0, next(targets)
    for length in lengths:
        if filled and filled + length > target:
            spans.append(filled)
            filled, target = 0, next(targets)
        filled += length
    return spans + [filled] if filled else spans


def group_sentences(lengths: Sequence[int], options: SpanOptions, document: int) -> list[int]:
    """A fixed number of sentences per span, however long; the last span may have fewer."""
    size = options.sentences_per_span
    groups = (sum(lengths[i : i + size]) for i in range(0, len(lengths), size))
    return [length for length in groups if length]


def keep_paragraphs(lengths: Sequence[int], options: SpanOptions, document: int) -> list[int]:
    """One span per paragraph."""
    return [length for length in lengths if length]


def fixed_windows(lengths: Sequence[int], options: SpanOptions, document: int) -> list[int]:
    """Consecutive windows of max_length - 2 tokens; the last may be shorter."""
    whole, rest = divmod(sum(lengths), options.body)
    return [options.body] * whole + ([rest] if rest else [])


class Recipe(NamedTuple):
    """How a text falls into pieces, and how the lengths of pieces become lengths of spans."""

    split: Callable[[str], list[str]]
    cut: Callable[[Sequence[int], SpanOptions, int], list[int]]


RECIPES: dict[str, Recipe] = {
    "sentences": Recipe(split_sentences, pack_sentences),
    "sentence_groups": Recipe(split_sentences, group_sentences),
    "paragraphs": Recipe(split_paragraphs, keep_paragraphs),
    "fixed": Recipe(split_nothing, fixed_windows),
}


def cut_spans(lengths: Sequence[int], options: SpanOptions, document: int) -> list[int]:
    """Returns the lengths of a document's spans, in order; they add up to the lengths of its
    pieces.

    Spans above MAX_LENGTHS_PER_SPAN * max_length are split evenly, so that no window of text is
    ever drawn out of a file's worth of tokens.
    """
    longest = MAX_LENGTHS_PER_SPAN * options.max_length
    spans: list[int] = []
    for length in RECIPES[options.recipe].cut(lengths, options, document):
        parts = -(-length // longest)
        spans += (
            [len(part) for part in np.array_split(range(length), parts)] if parts > 1 else [length]
        )
    return spans
