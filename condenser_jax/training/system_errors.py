"""What the system said, found in the errors of the libraries that pass it on."""

import errno
import os
import re
from collections.abc import Iterator

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


def in_words(number: int) -> str:
    """ "Read-only file system" of EROFS, in the middle of a sentence."""
    return os.strerror(number).lower()
