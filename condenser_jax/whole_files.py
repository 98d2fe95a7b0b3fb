"""Files and folders that are whole or not there, however their writing or removal ends; and whether
a place can be written, to be asked before the work that is to lie there.
"""

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from condenser_jax.errors import UserError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yields the path of a file to write, which takes the name `path` at the end. When something is
    raised it is removed, and a file that was there before stays.
    """
    path = Path(os.path.expanduser(path))
    half = path.with_name(f"{path.name}.half")
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


def check_file(path: str | Path, flag: str) -> None:
    """Raises UserError for a file that cannot be written at `path`, the value of `flag`."""
    place = Path(os.path.expanduser(path))
    if place.is_dir():
        raise UserError(f"{flag}={path} is a folder; name a file in it")
    check_folder(place.parent, f"{flag}={path}", flag)


def check_folder(path: str | Path, name: str, flag: str) -> None:
    """Raises UserError for a folder that cannot be written or made. `name` is what lies there, in
    the user's words, and `flag` where it was named.
    """
    place = Path(os.path.expanduser(path)).absolute()
    while not place.exists() and not place.parent.is_file():
        place = place.parent
    if not place.exists():
        raise UserError(f"{name} cannot be made: {place.parent} is a file; name another {flag}")
    if not place.is_dir():
        raise UserError(f"{name} cannot be made: {place} is a file; name another {flag}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{name} cannot be written: {place} is read-only; name another {flag}")
