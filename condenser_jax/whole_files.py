"""Files and folders that are whole or not there, however their writing or removal ends."""

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast


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


@contextmanager
def packed_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """The same, open for bytes, which are compressed where the name ends in .gz."""
    with written_whole(path) as half, ExitStack() as files:
        file: IO[bytes] = files.enter_context(open(half, "wb"))
        if str(path).endswith(".gz"):
            packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0)
            file = cast(IO[bytes], files.enter_context(packed))
        yield file


def remove_whole(folder: Path) -> None:
    """Deletes a folder; while that is half done the folder has another name beside its own."""
    aside = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)
