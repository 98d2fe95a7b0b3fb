"""Where documents come from: `open_source("jsonl:my/*.jsonl.gz")` streams them, whatever the
format.

A source is named by one string `kind:rest`. It yields documents one by one in a fixed order, so
that the index of a document is a name for it, and describes itself by what its text depends on, so
that prepared data can be found again and refused once its source has changed.
"""

from collections.abc import Callable
from functools import partial

from condenser_jax.data.catalogues import HuggingFaceSource, TfdsSource
from condenser_jax.data.docstrings import DocstringSource
from condenser_jax.data.documents import Source, SourceOptions
from condenser_jax.data.files import FileSource
from condenser_jax.errors import UserError, choose

KINDS: dict[str, Callable[[str, SourceOptions], Source]] = {
    "text": partial(FileSource, "text"),
    "jsonl": partial(FileSource, "jsonl"),
    "parquet": partial(FileSource, "parquet"),
    "hf": HuggingFaceSource,
    "tfds": TfdsSource,
    "docstrings": DocstringSource,
}


def open_source(spec: str, options: SourceOptions | None = None) -> Source:
    """Opens the source that `spec` names, such as "text:books/**/*.txt" or "docstrings:".

    Raises UserError for an unknown kind, and for a source that is missing or empty.
    """
    kind, colon, rest = spec.partition(":")
    if not colon:
        known = ", ".join(sorted(KINDS))
        raise UserError(f"source {spec!r} names no kind; write KIND:WHERE with one of: {known}")
    return KINDS[choose("kind of source", kind, KINDS)](rest, options or SourceOptions())
