"""Where pairs and triplets of sentences come from: files, or the docstrings of our requirements.

Nothing has to be downloaded for the latter, and nobody has judged them: a pair is a summary and the
first paragraph of its own or of the next docstring's body, and its score the share of words that
both have. In a triplet anchor and positive are of one docstring, the negative of the next in the
same module. Modules are split as in `docstring_pairs`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DOCSTRINGS, DocstringPair, read_pairs
from condenser_jax.retrieval.sentences import (
    MAX_SCORE,
    ScoredPair,
    Triplet,
    find_sentences,
    read_sts,
    read_triplets,
)

WORD = re.compile(r"\w+")


def open_pairs(where: str, split: str, options: CollectionOptions) -> list[ScoredPair]:
    """Opens "docstrings:", a folder with SPLIT.tsv, .csv or .jsonl, or such a file.

    Raises UserError for what is missing, or broken in too many lines.
    """
    if where.startswith(DOCSTRINGS):
        return list(_pairs(_of_docstrings(where, split, options)))
    return read_sts(find_sentences(where, split), options.bad_share)


def open_triplets(where: str, split: str, options: CollectionOptions) -> list[Triplet]:
    """Opens triplets of the same places."""
    if where.startswith(DOCSTRINGS):
        return list(_triplets(_of_docstrings(where, split, options)))
    return read_triplets(find_sentences(where, split), options.bad_share)


def is_file(where: str) -> bool:
    """Whether `where` is one file, which has no splits."""
    return Path(where).expanduser().is_file()


def _of_docstrings(where: str, split: str, options: CollectionOptions) -> list[DocstringPair]:
    found = list(read_pairs(where.removeprefix(DOCSTRINGS), split, options))
    if len(found) < 2:
        raise UserError(
            f"{where} has {len(found)} docstrings for {split} at heldout_share "
            f"{options.heldout_share:g}; expected 2 or more: raise it or name more packages"
        )
    return found


def _pairs(found: list[DocstringPair]) -> Iterator[ScoredPair]:
    for number, (one, following) in enumerate(zip(found, [*found[1:], found[0]], strict=True)):
        other = _first_paragraph(one if number % 2 else following)
        yield ScoredPair(one.summary, other, MAX_SCORE * _overlap(one.summary, other))


def _triplets(found: list[DocstringPair]) -> Iterator[Triplet]:
    for one, following in zip(found, found[1:], strict=False):
        if one.group == following.group:
            yield Triplet(one.summary, *map(_first_paragraph, (one, following)))


def _first_paragraph(pair: DocstringPair) -> str:
    return pair.body.partition("\n")[0]


def _overlap(first: str, second: str) -> float:
    """The share of the words of both that both have, 0 to 1 (Dice)."""
    words, others = (set(WORD.findall(text.casefold())) for text in (first, second))
    return 2 * len(words & others) / max(1, len(words) + len(others))
