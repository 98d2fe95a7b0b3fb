"""Where collections come from: `open_collection("beir:my/scifact", "test")`, whatever the layout.

As with sources of text, a collection is named by one string `kind:rest`.
"""

from collections.abc import Callable

from condenser_jax.errors import UserError, choose
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.docstring_pairs import open_docstrings
from condenser_jax.retrieval.folders import open_beir, open_dpr, open_msmarco

KINDS: dict[str, Callable[[str, str, CollectionOptions], Collection]] = {
    "beir": open_beir,
    "msmarco": open_msmarco,
    "dpr": open_dpr,
    "docstrings": open_docstrings,
}


def open_collection(
    spec: str, split: str = "test", options: CollectionOptions | None = None
) -> Collection:
    """Opens one split of the collection that `spec` names, such as "beir:FOLDER" or "docstrings:".

    Raises UserError for an unknown kind or split, for what is missing, and for too many broken
    records.
    """
    kind, colon, rest = spec.partition(":")
    if not colon:
        known = ", ".join(sorted(KINDS))
        raise UserError(f"collection {spec!r} names no kind; write KIND:WHERE with one of: {known}")
    read = KINDS[choose("kind of collection", kind, KINDS)]
    return read(rest, split, options or CollectionOptions())
