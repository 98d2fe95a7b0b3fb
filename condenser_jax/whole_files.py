"""Files that are whole or not there, however their writing ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yields the path of a file to write, which takes the name `path` at the end. When something is
    raised it is removed, and a file that was there before stays.
    """
    half = Path(path).with_name(f"{Path(path).name}.half")
    try:
        yield half
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
