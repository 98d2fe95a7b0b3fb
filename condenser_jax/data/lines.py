"""The lines of a text file, plain or compressed, one at a time within bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, NamedTuple

from condenser_jax.data.documents import BadRecords
from condenser_jax.errors import UserError

SNIFFED_BYTES = 1 << 16
MAX_LINE = 1 << 24  # bytes: a longer line is no document, but a file without line ends


class Record(NamedTuple):
    """A piece of a file that became a text; `place` is "file:line"."""

    place: str
    text: str


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
    """Yields the lines of a UTF-8 file, without their ends, as "name:number".

    Lines that cannot be decoded, and those of more than MAX_LINE bytes, which are never held whole,
    are counted in `bad`. Raises UserError for a compressed file that is damaged.
    """
    try:
        with open_binary(path) as file:
            pieces = iter(partial(file.readline, MAX_LINE + 1), b"")
            for number, raw in enumerate(pieces, start=1):
                place = f"{name}:{number}"
                if len(raw) > MAX_LINE and not raw.endswith(b"\n"):
                    _skip_rest_of_line(pieces)
                    bad.skip(place, f"is a line of over {MAX_LINE:,} bytes")
                    continue
                try:
                    yield Record(
                        place, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                    )
                except UnicodeDecodeError as error:
                    bad.skip(place, f"is not UTF-8: {error.reason} at byte {error.start}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be read: {error}; is it complete?") from error


def _skip_rest_of_line(pieces: Iterator[bytes]) -> None:
    while not next(pieces, b"\n").endswith(b"\n"):
        pass
