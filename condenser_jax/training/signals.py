"""What a signal means to a run: SIGTERM asks it to save and leave, Ctrl-C interrupts it.

A second signal of the same kind leaves at once, whatever is going on.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

from condenser_jax.errors import EXIT_INTERRUPTED

_jaxs_handler: int | None = None  # a pointer to the function in C that hears SIGTERM for the group


class StopRequest:
    """Whether this run was asked to stop; the loop looks after every step."""

    def __init__(self) -> None:
        self.requested = False
        self.interrupted = False

    def agreed(self, step: int) -> bool:
        """Whether to stop after `step`. On several hosts all must ask at every step, and all agree.

        Raises KeyboardInterrupt once more after a Ctrl-C: Python drops the first one where it falls
        into a callback, such as jax's of the garbage collector.

        There jax.distributed has taken SIGTERM over: it tells every host a common step to stop at.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        if jax.distributed.is_initialized():
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.requested


def keep_sigterm_until_training(handler: Any) -> None:
    """Gives SIGTERM back to `handler`, from jax.distributed, which takes it when it starts.

    `graceful_stop` hands it over again. Until then there is nothing to save, so nothing to agree.
    """
    global _jaxs_handler
    _jaxs_handler = _c_signal("signal")(signal.SIGTERM, None)
    signal.signal(signal.SIGTERM, handler)


def _hand_over_sigterm(jaxs_handler: int) -> None:
    """The first SIGTERM is jax's, which tells the group; the second ends the process, even one that
    waits in a collective for a peer that is gone.
    """
    _c_signal("sysv_signal")(signal.SIGTERM, jaxs_handler)  # in System V a handler hears one signal


def _c_signal(name: str) -> Any:
    """`signal` of the C library, or its variant: Python's knows no handlers but its own."""
    library = ctypes.CDLL(None)
    function = getattr(library, name, library.signal)
    function.argtypes, function.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    return function


def _report_unraisable(dropped: Any) -> None:
    """Python's own report of an exception in a callback, but for a Ctrl-C, which is not lost."""
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Handles SIGTERM and Ctrl-C within the block; the former handlers return. Main thread only."""
    request = StopRequest()

    def terminate(number: int, frame: FrameType | None) -> None:
        if request.requested:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        request.requested = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if request.interrupted:
            os._exit(EXIT_INTERRUPTED)
        request.interrupted = True
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: interrupt}
    if not jax.distributed.is_initialized():
        handlers[signal.SIGTERM] = terminate
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    if _jaxs_handler is not None:
        former[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
        _hand_over_sigterm(_jaxs_handler)
    former_hook, sys.unraisablehook = sys.unraisablehook, _report_unraisable
    try:
        yield request
    finally:
        if sys.unraisablehook is _report_unraisable:  # else a later one has its own reasons
            sys.unraisablehook = former_hook
        for number, handler in former.items():
            signal.signal(number, handler)
