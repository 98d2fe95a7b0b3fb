"""Passages and queries: ids and texts with random access, mapped from disk."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from condenser_jax.retrieval.sound import Broken
from condenser_jax.retrieval.stored import as_batch, map_table

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("title", pa.large_string())])
TEXTS = "texts.arrow"


class Text(NamedTuple):
    """A passage or a query; most have no title."""

    id: str
    text: str
    title: str = ""

    @property
    def joined(self) -> str:
        """Title, a blank, text: what BM25 and encoders read, as BEIR's own code joins them."""
        return f"{self.title} {self.text}".strip()


def checked_text(text: Text) -> Text:
    """Returns a text that is not empty. Raises Broken for one without a word in text and title."""
    if not text.joined:
        raise Broken(f"has an empty text (id {text.id!r})")
    return text


class Texts(Sequence[Text]):
    """Texts in the order of their file.

    `texts[i]` is a Text and `texts[a:b]` are Texts again, without a copy. Memory holds what is
    looked at. Another process gets the path of what is mapped, and a copy of what is not.
    """

    def __init__(self, source: Path | pa.Table) -> None:
        self._source = source

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source}

    @classmethod
    def of(cls, texts: Iterable[Text]) -> "Texts":
        """Holds texts in memory."""
        rows = list(map(tuple, texts))
        return cls(pa.Table.from_batches([as_batch(rows, SCHEMA)] if rows else [], SCHEMA))

    @cached_property
    def _table(self) -> pa.Table:
        return map_table(self._source) if isinstance(self._source, Path) else self._source

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: int | slice) -> "Text | Texts":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return Texts.of(self[row] for row in range(start, stop, step))
            return Texts(self._table.slice(start, max(0, stop - start)))
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        row = int(index) % len(self)
        return Text(*(self._table.column(name)[row].as_py() for name in SCHEMA.names))

    def __iter__(self) -> Iterator[Text]:
        for batch in self._table.to_batches():
            yield from map(Text, *(batch.column(name).to_pylist() for name in SCHEMA.names))

    @property
    def ids(self) -> list[str]:
        """All ids in order, as Python strings: about 60 bytes each."""
        return self._table.column("id").to_pylist()

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Returns int64 [len(ids)]: where each id stands, -1 for one that is not here.

        One pass over all ids of the file, so ask for many at once.
        """
        wanted = {name: number for number, name in enumerate(dict.fromkeys(ids))}
        places = np.full(len(wanted), -1, np.int64)
        start = 0
        for which in self._which(list(wanted)):
            rows = np.flatnonzero(which >= 0)
            places[which[rows]] = start + rows
            start += len(which)
        return places[np.array([wanted[name] for name in ids], np.int64)]

    def only(self, ids: Sequence[str]) -> "Texts":
        """Returns the texts that have one of `ids`, in the order of the file, in memory."""
        is_wanted = [pa.array(which >= 0) for which in self._which(ids)]
        return Texts(self._table.filter(pa.chunked_array(is_wanted, pa.bool_())))

    def _which(self, ids: Sequence[str]) -> Iterator[np.ndarray]:
        """Chunk by chunk: for every text the number of its id in `ids`, or -1."""
        values = pa.array(ids, pa.string())
        for chunk in self._table.column("id").chunks:
            yield pc.index_in(chunk, value_set=values).fill_null(-1).to_numpy()
