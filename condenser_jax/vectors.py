"""Vectors on disk: shards that are mapped into memory, their ids, and a card.

    card.json            what they are, and what an encoder of queries must share with them
    ids.arrow            the id of every row
    00000.bin ...        rows 0 to shard_rows - 1, and so on, in the dtype of the card
    00000.json ...       size and hash of a shard, written when it is whole

A shard without its hash, or with another one, is made again by whoever writes; readers look at
sizes alone.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa

from condenser_jax.data.store import file_hash
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.retrieval.stored import map_table, write_table

FORMAT = 1
CARD, IDS = "card.json", "ids.arrow"
TOLD = {"pooling", "query_prefix", "passage_prefix"}  # by flags, where an encoder does not say it
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
_IDS_SCHEMA = pa.schema([("id", pa.string())])


@dataclasses.dataclass(frozen=True)
class VectorsCard:
    """What a directory of vectors holds."""

    source: str  # the texts, as the user named them
    kind: str  # "passage" or "query"
    texts_hash: str  # of all ids and texts
    dtype: str
    width: int
    rows: int
    shard_rows: int
    encoder: Mapping[str, Any]  # pooling, prefixes, lengths, normalisation, hashes
    format: int = FORMAT

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.shard_rows)

    @property
    def digest(self) -> str:
        """A hash of all of it."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def rows_of(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def bytes_of(self, shard: int) -> int:
        """The size of its file."""
        return len(self.rows_of(shard)) * self.width * np.dtype(DTYPES[self.dtype]).itemsize


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What two descriptions do not share, each as "name found, not wanted"; long values cut."""

    def short(value: Any) -> str:
        return value[:8] if isinstance(value, str) and len(value) == 32 else repr(value)

    return [
        f"{name} {short(found.get(name))}, not {short(wanted.get(name))}"
        for name in dict.fromkeys([*wanted, *found])
        if found.get(name) != wanted.get(name)
    ]


def known_card(directory: str | Path) -> VectorsCard | None:
    """The card of vectors that were begun or finished; None where there are none. Raises UserError
    for a card that cannot be read.
    """
    path = Path(directory).expanduser()
    return _read_card(path) if (path / CARD).exists() else None


def create(directory: Path, card: VectorsCard, ids: Iterable[str]) -> None:
    """Writes card and ids, unless they are there already.

    Raises UserError if the directory holds something else, or vectors of another card.
    """
    if (directory / CARD).exists():
        found, wanted = (_flat(one) for one in (_read_card(directory), card))
        if different := differences(found, wanted):
            raise UserError(
                f"{directory} holds other vectors: {'; '.join(different)}; name another directory "
                "for these, or remove that one"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    ours = (IDS, f"{CARD}.")  # also half of the card, which a kill has left
    strangers = sorted(path.name for path in directory.iterdir() if not path.name.startswith(ours))
    if strangers:
        raise UserError(
            f"{directory} holds {strangers[0]}, which belongs to no vectors; name another "
            "directory for these"
        )
    partial = directory / f"{IDS}.partial"
    write_table(partial, _IDS_SCHEMA, ((name,) for name in ids))
    os.replace(partial, directory / IDS)
    _write_json(directory / CARD, dataclasses.asdict(card))


def is_sound(directory: Path, card: VectorsCard, shard: int) -> bool:
    """True when a shard is there and has the hash with which it was written."""
    data, note = _paths(directory, shard)
    try:
        known = json.loads(note.read_text(encoding="utf-8"))["hash"]
        return data.stat().st_size == card.bytes_of(shard) and file_hash(data) == known
    except (OSError, ValueError, TypeError, KeyError):
        return False


def write_shard(directory: Path, card: VectorsCard, shard: int, vectors: np.ndarray) -> None:
    """Writes the vectors [n, D] of one shard. Raises RunFailed for any that are not finite."""
    rows = card.rows_of(shard)
    with np.errstate(over="ignore"):  # what is too large is found below
        narrow = vectors.astype(DTYPES[card.dtype])
    assert narrow.shape == (len(rows), card.width)
    bad = np.flatnonzero(~np.isfinite(narrow.astype(np.float32)).all(axis=1))
    if len(bad):
        raise RunFailed(
            f"{len(bad)} of the vectors of rows {rows.start:,} to {rows.stop - 1:,} are not finite "
            f"in {card.dtype}, row {rows[bad[0]]:,} first; use --dtype=float32 or check the weights"
        )
    data, note = _paths(directory, shard)
    partial = data.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(np.ascontiguousarray(narrow).view(np.uint8).data)
    os.replace(partial, data)
    _write_json(note, {"bytes": data.stat().st_size, "hash": file_hash(data)})


class Vectors:
    """Vectors of a finished directory; memory holds what is looked at."""

    def __init__(self, directory: Path, card: VectorsCard) -> None:
        self.directory, self.card = directory, card

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """The shards, each mapped [rows, D]."""
        dtype, width = DTYPES[self.card.dtype], self.card.width
        paths = (_paths(self.directory, shard)[0] for shard in range(self.card.shards))
        return [np.memmap(path, dtype, mode="r").reshape(-1, width) for path in paths]

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        return map_table(self.directory / IDS).column("id")

    def __len__(self) -> int:
        return self.card.rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows of the slice [n, D]; no copy where one shard holds them."""
        start, stop, step = rows.indices(len(self))
        assert step == 1, "vectors are read in order"
        size = self.card.shard_rows
        parts = [
            self.shards[shard][max(0, start - shard * size) : stop - shard * size]
            for shard in range(start // size, -(-stop // size))
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([self.take(np.zeros(0, np.int64)), *parts])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors [n, D] of single rows, in their order."""
        found = np.empty((len(rows), self.card.width), DTYPES[self.card.dtype])
        shards = np.asarray(rows) // self.card.shard_rows
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            found[here] = self.shards[shard][np.asarray(rows)[here] % self.card.shard_rows]
        return found

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of single rows."""
        return self._ids.take(pa.array(rows, pa.int64())).to_pylist()

    def each_id(self) -> Iterator[str]:
        """Yields all ids in order; memory holds those of a few thousand rows."""
        for chunk in self._ids.chunks:
            yield from chunk.to_pylist()


def open_vectors(directory: str | Path) -> Vectors:
    """Opens finished vectors. Raises UserError for anything else."""
    path = Path(directory).expanduser()
    card = _read_card(path)
    files = [_paths(path, shard) for shard in range(card.shards)]
    missing = [
        data.name
        for shard, (data, note) in enumerate(files)
        if not note.exists() or not data.exists() or data.stat().st_size != card.bytes_of(shard)
    ]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {card.shards} shards ({missing[0]} first); start the "
            "same launch/encode.py again, which makes them"
        )
    return Vectors(path, card)


def check_encoder(vectors: Vectors, described: Mapping[str, Any], encoder: str) -> None:
    """Raises UserError, naming every difference, unless `described`, of the encoder of the queries
    (`Encoder.described`), is what the passages were encoded with.
    """
    if vectors.card.kind != "passage":
        raise UserError(
            f"{vectors.directory} holds vectors of kind {vectors.card.kind!r}; encode the corpus "
            "with --kind=passage to search it"
        )
    if different := differences(vectors.card.encoder, described):
        remedy = "encode the corpus with this model, or name the model that it was encoded with"
        if {one.split()[0] for one in different} <= TOLD:
            remedy = (
                "use the model as it was used then (--pooling, --query_prefix, --passage_prefix), "
                "or encode the corpus anew"
            )
        raise UserError(
            f"{vectors.directory} was not encoded with {encoder}: it has {'; '.join(different)}; "
            + remedy
        )


def _paths(directory: Path, shard: int) -> tuple[Path, Path]:
    return directory / f"{shard:05d}.bin", directory / f"{shard:05d}.json"


def _flat(card: VectorsCard) -> dict[str, Any]:
    fields = dataclasses.asdict(card)
    return fields | fields.pop("encoder")


def _read_card(directory: Path) -> VectorsCard:
    try:
        content = json.loads((directory / CARD).read_text(encoding="utf-8"))
        card = VectorsCard(**content)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{directory} holds no vectors (no {CARD} of theirs); make them with launch/encode.py"
        ) from error
    if card.format != FORMAT:
        raise UserError(
            f"{directory} has vectors of format {card.format}, expected {FORMAT}; encode them anew"
        )
    return card


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def hash_texts(texts: Iterable[tuple[str, str]]) -> str:
    """A hash of ids and texts, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, text in texts:
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()
