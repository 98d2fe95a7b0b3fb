"""What the system said, found in the errors of libraries that pass it on, and told to people."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from condenser_jax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_TENSORSTORE = re.compile(r"os_error_code='(\d+)'")


def system_error(error: BaseException | None) -> int | None:
    """The errno that caused an error, told by an OSError or by the words of tensorstore."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        if words := _TENSORSTORE.search(str(cause)):
            return int(words[1])
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def explain(number: int) -> tuple[str, str]:
    """(what is the matter, what to do about it) for a number of NOT_WRITABLE."""
    if number in FULL:
        return "disk full", "free some space"
    return os.strerror(number).lower(), "see that it can be written"


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises UserError for a full or read-only disk: the error of an open file does not name it."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        what, remedy = explain(error.errno)
        raise UserError(f"{what} while writing {path}; {remedy} and start again") from error
