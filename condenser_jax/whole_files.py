"""Files and folders that are whole or not there, however their writing or removal ends."""

import os
import shutil
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


def remove_whole(folder: Path) -> None:
    """Deletes a folder; while that is half done the folder has another name beside its own."""
    aside = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)
