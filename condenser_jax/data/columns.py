"""Columns on disk: append-only typed files, read back in chunks, so that memory does not grow with
them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

CHUNK_ROWS = 1 << 20


class Column:
    """One growing array in one file; `rows` counts what was appended."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype, self.rows = path, np.dtype(dtype), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "wb")

    def append(self, values: np.ndarray) -> None:
        """Writes values at the end, converted to the column's dtype."""
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.rows += len(values)

    def close(self) -> None:
        """Flushes and closes the file; errors of a full disk show here at the latest."""
        self._file.close()

    def __enter__(self) -> "Column":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_rows(path: Path, dtype: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Returns rows start..stop of a column as an array in memory (never a mapping, which would
    count).
    """
    size = np.dtype(dtype).itemsize
    rows = os.path.getsize(path) // size
    stop = rows if stop is None else min(stop, rows)
    return np.fromfile(path, dtype, count=max(0, stop - start), offset=start * size)


def read_chunks(path: Path, dtype: Any, rows: int = CHUNK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index of the first row, rows) through a whole column."""
    total = os.path.getsize(path) // np.dtype(dtype).itemsize
    for start in range(0, total, rows):
        yield start, read_rows(path, dtype, start, start + rows)
