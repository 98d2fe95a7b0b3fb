"""A directory that exists whole or not at all, however the process that builds it ends."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from condenser_jax.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def built_once(target: Path) -> Iterator[Path | None]:
    """Gives an empty directory to fill, which becomes `target` at the end; None when `target` is
    there.

    A second process waits for the first and then finds its work. What a killed process left behind
    is removed by the next, for the lock dies with its holder. Raises UserError for a full disk and
    for a place that cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.parent / f".{target.name}.lock", "w")
    except OSError as error:
        raise UserError(f"{target.parent} cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            os.replace(partial, target)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if _is_disk_full(error):
                free = shutil.disk_usage(target.parent).free
                raise UserError(
                    f"the disk of {target.parent} is full ({free / 1e6:.0f} MB free, "
                    "what was half-written is removed); free some space or choose another directory"
                ) from error
            raise


def _is_disk_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in NO_SPACE or "No space left on device" in str(error)
