"""What a signal means to a run: SIGTERM asks it to save and leave, Ctrl-C interrupts it.

A second signal of the same kind leaves at once, whatever is going on.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from condenser_jax.errors import EXIT_INTERRUPTED


class StopRequest:
    """Whether this run was asked to stop; the loop looks after every step."""

    def __init__(self) -> None:
        self.requested = False

    def agreed(self, step: int) -> bool:
        """Whether to stop after `step`. On several hosts all must ask at every step, and all agree.

        There jax.distributed has taken SIGTERM over: it tells every host a common step to stop at.
        """
        if jax.distributed.is_initialized():
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.requested


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Handles SIGTERM and Ctrl-C within the block; the former handlers return. Main thread only."""
    request, interrupted = StopRequest(), False

    def terminate(number: int, frame: FrameType | None) -> None:
        if request.requested:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        request.requested = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            os._exit(EXIT_INTERRUPTED)
        interrupted = True
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: interrupt}
    if not jax.distributed.is_initialized():
        handlers[signal.SIGTERM] = terminate
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
