"""Documents out of files: text, JSON lines and parquet, named by a glob, read as streams.

Files are read in the order of their names. A document's key is its file's name below the folder
that all files share, and its line (or row), so keys do not depend on where the corpus lies.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from glob import glob
from itertools import groupby
from typing import Any

from condenser_jax.data.documents import BadRecords, Document, SourceOptions, field_text
from condenser_jax.data.lines import MAX_LINE, Record, read_lines, refuse_binary
from condenser_jax.errors import UserError

BLOCK = 1 << 20
HASHED_BLOCKS = 16


def find_files(kind: str, pattern: str) -> list[str]:
    """Returns the non-empty files that match `pattern` (`**` crosses folders), by name.

    Raises UserError when nothing matches, when directories alone do, or when all files are empty;
    `kind` of source is for the message.
    """
    matches = sorted(glob(os.path.expanduser(pattern), recursive=True))
    found = [path for path in matches if os.path.isfile(path)]
    if matches and not found:
        inside = os.path.join(matches[0], f"*.{'txt' if kind == 'text' else kind}")
        raise UserError(
            f"{matches[0]} is a directory, expected files; name those in it: '{kind}:{inside}'"
        )
    if not found:
        raise UserError(
            f"no file matches {pattern!r} in {os.getcwd()}; check the path and quote the *"
        )
    filled = [path for path in found if os.path.getsize(path) > 0]
    if not filled:
        raise UserError(
            f"{found[0]} is empty ({len(found)} files match {pattern!r}); expected text"
        )
    return filled


def fingerprint(path: str) -> str:
    """Returns a hash of a file's size and content: all of it up to 16 MiB, else of 16 blocks
    spread over it.

    The cost is bounded, because it is paid at every start; prepared shards are hashed in full.
    """
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    stride = max(BLOCK, (size - BLOCK) // (HASHED_BLOCKS - 1))
    with open(path, "rb") as file:
        for start in range(0, size, stride):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def read_text(path: str, name: str, options: SourceOptions, bad: BadRecords) -> Iterator[Record]:
    """Yields one record per line that is not blank, or per run of them.

    A run that is longer than the longest line allowed is counted in `bad`, and not held either.
    """
    refuse_binary(path)
    records = _joined if options.text_layout == "paragraphs" else _each
    lines = read_lines(path, name, bad)
    for has_text, run in groupby(lines, lambda line: bool(line.text.strip())):
        if has_text:
            yield from records(run, bad)


def _each(run: Iterator[Record], bad: BadRecords) -> Iterator[Record]:
    for line in run:
        bad.accept()
        yield line


def _joined(run: Iterator[Record], bad: BadRecords) -> Iterator[Record]:
    first = next(run)
    texts, size = [first.text], len(first.text)
    for line in run:
        size += 1 + len(line.text)
        if size > MAX_LINE:
            bad.skip(first.place, f"begins {MAX_LINE:,} characters without a blank line")
            return
        texts.append(line.text)
    bad.accept()
    yield Record(first.place, "\n".join(texts))


def read_jsonl(path: str, name: str, options: SourceOptions, bad: BadRecords) -> Iterator[Record]:
    """Yields one record per line of JSON."""
    refuse_binary(path)
    for place, line in read_lines(path, name, bad):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.skip(place, f"is not JSON: {error}")
            continue
        text = field_text(record, options.text_field, place, bad)
        if text is not None:
            yield Record(place, text)


def read_parquet(path: str, name: str, options: SourceOptions, bad: BadRecords) -> Iterator[Record]:
    """Yields one record per row, reading one column in batches."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from error
    names = file.schema_arrow.names
    if options.text_field not in names:
        fields = ", ".join(sorted(names))
        raise UserError(
            f"{path} has no field {options.text_field!r}; its fields are: {fields}; set text_field"
        )
    batches = file.iter_batches(batch_size=1024, columns=[options.text_field])
    row = 0
    while True:
        try:
            batch = next(batches, None)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} cannot be read: {reason}; is it complete?") from error
        if batch is None:
            return
        for record in batch.to_pylist():
            row += 1
            text = field_text(record, options.text_field, f"{name}:{row}", bad)
            if text is not None:
                yield Record(f"{name}:{row}", text)


READERS: dict[str, Callable[[str, str, SourceOptions, BadRecords], Iterator[Record]]] = {
    "text": read_text,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}


class FileSource:
    """The documents of all files that match a glob."""

    def __init__(self, kind: str, pattern: str, options: SourceOptions) -> None:
        self.kind = kind
        self.options = options
        self.paths = find_files(kind, pattern)
        self.root = os.path.dirname(os.path.commonprefix([os.path.abspath(p) for p in self.paths]))
        self.bad = BadRecords(options.bad_share)

    def name(self, path: str) -> str:
        """Returns a file's name below the folder that all files share."""
        return os.path.relpath(os.path.abspath(path), self.root)

    def documents(self) -> Iterator[Document]:
        """Streams the documents, file by file; each is its own group."""
        self.bad = BadRecords(self.options.bad_share)
        read = READERS[self.kind]
        for path in self.paths:
            for place, text in read(path, self.name(path), self.options, self.bad):
                yield Document(key=place, group=place, text=text)
        self.bad.check()

    def describe(self) -> dict[str, Any]:
        """Names, sizes and fingerprints of the files, and how they are read."""
        return {
            "kind": self.kind,
            "text_layout": self.options.text_layout if self.kind == "text" else None,
            "text_field": self.options.text_field if self.kind != "text" else None,
            "files": [
                {"name": self.name(p), "bytes": os.path.getsize(p), "fingerprint": fingerprint(p)}
                for p in self.paths
            ],
        }
