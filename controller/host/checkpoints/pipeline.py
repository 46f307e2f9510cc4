"""Work on the pieces of a checkpoint: by threads, in bounded number, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

THREADS: Final = min(4, os.cpu_count() or 1)
TOGETHER: Final = 8
"""Pieces that a thread takes at once: to hand over a single one takes longer than to hash it."""
AHEAD: Final = 3 * THREADS
"""So many times `TOGETHER` in work at once: all the memory that a checkpoint takes, but for the lists."""


def in_order(pool: Executor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of the calls. Raises what a call raises; when it ends, no call runs any more."""
    calls = iter(calls)
    waiting: deque[Future[list[T]]] = deque()
    try:
        while some := tuple(islice(calls, TOGETHER)):
            waiting.append(pool.submit(_all, some))
            if len(waiting) >= AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        wait([each for each in waiting if not each.cancel()])


def _all(calls: Sequence[Callable[[], T]]) -> list[T]:
    return [call() for call in calls]
