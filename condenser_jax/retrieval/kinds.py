"""Where collections come from: `open_collection("beir:my/scifact", "test")`, whatever the layout.

As with sources of text, a collection is named by one string `kind:rest`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from condenser_jax.errors import UserError, choose
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.docstring_pairs import docstring_corpus, open_docstrings
from condenser_jax.retrieval.folders import (
    BEIR,
    DPR,
    MS_MARCO,
    open_beir,
    open_dpr,
    open_msmarco,
    read_corpus,
)
from condenser_jax.retrieval.texts import Texts


class Kind(NamedTuple):
    """How a layout is read."""

    collection: Callable[[str, str, CollectionOptions], Collection]  # of one split
    corpus: Callable[[str, CollectionOptions], Texts]  # of all of them


KINDS = {
    "beir": Kind(open_beir, partial(read_corpus, BEIR)),
    "msmarco": Kind(open_msmarco, partial(read_corpus, MS_MARCO)),
    "dpr": Kind(open_dpr, partial(read_corpus, DPR)),
    "docstrings": Kind(open_docstrings, docstring_corpus),
}


def open_collection(
    spec: str, split: str = "test", options: CollectionOptions | None = None
) -> Collection:
    """Opens one split of the collection that `spec` names, such as "beir:FOLDER" or "docstrings:".

    Raises UserError for an unknown kind or split, for what is missing, and for too many broken
    records.
    """
    kind, rest = _find(spec)
    return kind.collection(rest, split, options or CollectionOptions())


def open_corpus(spec: str, options: CollectionOptions | None = None) -> Texts:
    """Opens the passages of a collection alone, whatever splits it has. Raises UserError as
    `open_collection` does.
    """
    kind, rest = _find(spec)
    return kind.corpus(rest, options or CollectionOptions())


def _find(spec: str) -> tuple[Kind, str]:
    name, colon, rest = spec.partition(":")
    if not colon:
        known = ", ".join(sorted(KINDS))
        raise UserError(f"collection {spec!r} names no kind; write KIND:WHERE with one of: {known}")
    return KINDS[choose("kind of collection", name, KINDS)], rest
