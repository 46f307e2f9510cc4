"""Work on the pieces of a checkpoint: by threads, in bounded number, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, TypeVar

T = TypeVar("T")

THREADS: Final = min(4, os.cpu_count() or 1)
AHEAD: Final = 4 * THREADS
"""Pieces in work at once: all the memory that a checkpoint of any size takes, but for the lists."""


def in_order(pool: Executor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of the calls. Raises what a call raises, in its turn."""
    waiting: deque[Future[T]] = deque()
    for call in calls:
        waiting.append(pool.submit(call))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
