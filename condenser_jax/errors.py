"""What a user may do wrong, said in one line; and the exit statuses of every command."""

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """A user's mistake: one clear line with the value, the expectation and the remedy.

    Commands print it without a stack trace and exit with status 2.
    """


class RunFailed(Exception):
    """The run cannot go on (a loss that is not finite): one clear line, exit status 1."""


class Preempted(Exception):
    """The run was asked to stop (SIGTERM), saved itself and can be resumed: exit status 75."""


def choose(kind: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is one of `known`; otherwise raises a UserError that names the nearest
    one. An empty name, that of a default, is known and not named.
    """
    known = sorted(known)
    if value in known:
        return value
    names = [name for name in known if name]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"unknown {kind} {value!r}; {hint}known: {', '.join(names)}")
