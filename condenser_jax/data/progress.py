"""A progress bar that updates in place on a terminal, and prints a line now and then into a log."""

import sys
from types import TracebackType
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 10.0


class _Lines:
    """Turns the carriage returns of a progress bar into lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


class Progress:
    """Counts documents: `with Progress("prepare", True) as bar: bar.advance(1)`. Of a known `total`
    it tells the time that is left.
    """

    def __init__(self, name: str, is_shown: bool, total: int | None = None) -> None:
        from tqdm import tqdm

        is_terminal = sys.stderr.isatty()
        file: Any = sys.stderr if is_terminal else _Lines(sys.stderr)
        seconds = 0.2 if is_terminal else SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=total,
            desc=name,
            unit=" documents",
            file=file,
            mininterval=seconds,
            disable=not is_shown,
        )
        if not is_terminal:
            self._bar.miniters = 1

    def advance(self, documents: int) -> None:
        """Counts some more."""
        self._bar.update(documents)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
