"""The embedded retrieval task: from the summary of a docstring to its body.

Nothing has to be downloaded, and it is a search that engineers do: from a line of words to the
function. A passage is the body of a docstring without its summary, which is the query; summaries
and bodies that occur twice are left out, for nobody could tell which is meant. Whole modules
belong to one split: `test` is what a run of the same seed and heldout_share never trains on, `dev`
as many modules again, `train` the rest. Passages of all splits are searched.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from condenser_jax.data.cutting import heldout_rank
from condenser_jax.data.docstrings import DocstringSource
from condenser_jax.data.documents import BadRecords, Document, SourceOptions
from condenser_jax.errors import UserError, choose
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.stored import TableWriter, map_table, store
from condenser_jax.retrieval.texts import SCHEMA, TEXTS, Text, Texts

DOCSTRINGS = "docstrings:"  # what begins the name of such data, wherever they are named
SPLITS = ("train", "dev", "test")
PAIRS = SCHEMA.append(pa.field("summary", pa.string())).append(pa.field("group", pa.string()))
VERSION = 1  # raise it when other pairs are chosen


class DocstringPair(NamedTuple):
    """A docstring in two parts, and the module that it is in."""

    summary: str
    body: str  # paragraphs, one a line
    group: str


def split_of(group: str, options: CollectionOptions) -> str:
    """Returns the split to which a module with all that is in it belongs."""
    rank = heldout_rank(group, options.split_seed) / options.heldout_share
    return "test" if rank < 1 else "dev" if rank < 2 else "train"


def choose_pairs(documents: list[Document]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields (id, body, title, summary, group) of the documents whose summary and body are
    unique.
    """
    bodies = [_body(document) for document in documents]
    with_summary = Counter(document.summary.casefold() for document in documents)
    with_body = Counter(bodies)
    for document, body in zip(documents, bodies, strict=True):
        if body and with_body[body] == 1 and with_summary[document.summary.casefold()] == 1:
            yield document.key, body, "", document.summary, document.group


def _body(document: Document) -> str:
    """The paragraphs without the summary, wherever it stands."""
    paragraphs = document.text.split("\n\n")
    return "\n".join(text for text in paragraphs if text != document.summary)


def docstring_corpus(rest: str, options: CollectionOptions) -> Texts:
    """Opens the bodies of all splits."""
    return Texts(_stored(rest, options))


def open_docstrings(rest: str, split: str, options: CollectionOptions) -> Collection:
    """Opens the docstrings of our requirements, or of some of them ("docstrings:jax,numpy")."""
    choose("split of docstrings:", split, SPLITS)
    path = _stored(rest, options)
    columns = (map_table(path).column(name).to_pylist() for name in ("id", "summary", "group"))
    queries = [
        Text(name, summary)
        for name, summary, group in zip(*columns, strict=True)
        if split_of(group, options) == split
    ]
    if not queries:
        raise UserError(
            f"no module of docstrings:{rest} belongs to {split} at heldout_share "
            f"{options.heldout_share:g}; raise it or name more packages"
        )
    qrels = {query.id: {query.id: 1} for query in queries}
    return Collection(f"docstrings:{rest}", split, Texts(path), Texts.of(queries), qrels)


def read_pairs(rest: str, split: str, options: CollectionOptions) -> Iterator[DocstringPair]:
    """Yields the summaries and bodies of a split, in the order of their names."""
    choose("split of docstrings:", split, SPLITS)
    table = map_table(_stored(rest, options))
    columns = (table.column(name).to_pylist() for name in ("summary", "text", "group"))
    for pair in map(DocstringPair, *columns):
        if split_of(pair.group, options) == split:
            yield pair


def _stored(rest: str, options: CollectionOptions) -> Path:
    """The file of all pairs, made the first time."""
    source = DocstringSource(rest, SourceOptions(bad_share=options.bad_share))

    def fill(directory: Path, bad: BadRecords) -> None:
        with TableWriter(directory / TEXTS, PAIRS) as table:
            for pair in choose_pairs(list(source.documents())):
                table.append(pair)
                bad.accept()

    described = {"pairs": VERSION, **source.describe()}
    return store(f"docstrings:{rest}", described, fill, options.bad_share) / TEXTS
