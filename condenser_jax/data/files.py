"""Documents out of files: text, JSON lines and parquet, named by a glob, read as streams.

Files are read in the order of their names. A document's key is its file's name below the folder
that all files share, and its line (or row), so keys do not depend on where the corpus lies.
"""

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from glob import glob
from typing import IO, Any, NamedTuple

from condenser_jax.data.documents import BadRecords, Document, SourceOptions, field_text
from condenser_jax.errors import UserError

SNIFFED_BYTES = 1 << 16
BLOCK = 1 << 20
HASHED_BLOCKS = 16


class Record(NamedTuple):
    """A piece of a file that became a text; `place` is "file:line"."""

    place: str
    text: str


def find_files(pattern: str) -> list[str]:
    """Returns the non-empty files that match `pattern` (`**` crosses folders), by name.

    Raises UserError when nothing matches, or when all that matches is empty.
    """
    found = sorted(
        p for p in glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p)
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


def open_binary(path: str) -> IO[bytes]:
    """Opens a file for reading bytes, through gzip (.gz) or zstandard (.zst)."""
    if path.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.endswith(".zst"):
        try:
            import zstandard  # noqa: F401
        except ImportError as error:
            raise UserError(f"{path} is compressed by zstandard; pip install zstandard") from error
        return io.BufferedReader(_Zstandard(path))
    return open(path, "rb")


class _Zstandard(io.RawIOBase):
    """The text of a file of zstandard frames; raises EOFError where it is damaged or cut off.

    The package's own reader takes a file that was cut off for a whole one.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")
        self._frame: Any = None  # under way; None between two frames
        self._rest, self._ready = b"", b""  # not yet decompressed; not yet read

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._rest or self._file.read(SNIFFED_BYTES)
            if not block and self._frame:
                raise EOFError("it ends within a frame")
            if not block:
                return 0
            self._decompress(block)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _decompress(self, block: bytes) -> None:
        import zstandard

        frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = frame.decompress(block)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        self._rest, self._frame = (frame.unused_data, None) if frame.eof else (b"", frame)


def refuse_binary(path: str) -> None:
    """Raises UserError when the head of a file holds NUL bytes: then it is no text."""
    try:
        with open_binary(path) as file:
            head = file.read(SNIFFED_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}; is it complete?") from error
    if b"\0" in head:
        raise UserError(
            f"{path} holds binary data (a NUL byte), expected UTF-8 text; check the path"
        )


def read_lines(path: str, name: str, bad: BadRecords) -> Iterator[Record]:
    """Yields the lines of a UTF-8 file, without their ends; lines that cannot be decoded are
    counted.
    """
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                place = f"{name}:{number}"
                try:
                    yield Record(
                        place, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                    )
                except UnicodeDecodeError as error:
                    bad.skip(place, f"is not UTF-8: {error.reason} at byte {error.start}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; is it complete?") from error


def read_text(path: str, name: str, options: SourceOptions, bad: BadRecords) -> Iterator[Record]:
    """Yields one record per line, or per run of lines between blank lines."""
    refuse_binary(path)
    gathered: list[Record] = []
    for line in read_lines(path, name, bad):
        if line.text.strip():
            gathered.append(line)
        if gathered and (options.text_layout == "lines" or not line.text.strip()):
            bad.accept()
            yield Record(gathered[0].place, "\n".join(part.text for part in gathered))
            gathered = []
    if gathered:
        bad.accept()
        yield Record(gathered[0].place, "\n".join(part.text for part in gathered))


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
        self.paths = find_files(pattern)
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
