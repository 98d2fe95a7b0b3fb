"""A parallel map that keeps the order and never runs ahead of its reader.

The pools of the standard library drain their input at once: ten gigabytes of documents would pile
up in memory. Here at most a few items per worker are on their way. Workers are spawned, not forked:
the caller may hold threads of jax or of a tokenizer.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from condenser_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
ITEMS_PER_WORKER = 4


def usable_cores() -> int:
    """The processors that this process may use: in a container, fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _follow_the_parent() -> None:
    """Ends this process with its parent: one that is killed cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _start(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, without traces
    threading.Thread(target=_follow_the_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[R]:
    """Yields function(item) for every item in order, from `workers` processes (0 or 1: this one).

    `initializer(*initargs)` runs once per process; `function` must be importable by name.
    Raises UserError when a process dies.
    """
    if workers <= 1:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (initializer, initargs))
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= workers * ITEMS_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} processes that read text died, most likely out of memory; "
            "use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
