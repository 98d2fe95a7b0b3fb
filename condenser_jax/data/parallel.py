"""A parallel map that keeps the order and never runs ahead of its reader.

`multiprocessing.Pool.imap` drains its whole input at once, so ten gigabytes of documents would
pile up in memory. Here at most a few items per worker are on their way. Workers are spawned, not
forked: the caller may hold threads of jax or of a tokenizer.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
ITEMS_PER_WORKER = 4


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[R]:
    """Yields function(item) for every item in order, from `workers` processes (0 or 1: from this
    one).

    `initializer(*initargs)` runs once per process; `function` must be importable by name.
    """
    if workers <= 1:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer, initargs) as pool:
        pending: deque[Any] = deque()
        for item in items:
            pending.append(pool.apply_async(function, (item,)))
            if len(pending) >= workers * ITEMS_PER_WORKER:
                yield pending.popleft().get()
        while pending:
            yield pending.popleft().get()
