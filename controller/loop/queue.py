"""The work queue: a key that is being worked on is never handed out twice, and never lost.

Level-triggered: a key carries nothing but itself, and ten nudges before a look are one look.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class WorkQueue:
    """Thread-safe. `add` nudges now, `add_at` later; every `get` must be followed by `done`."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        # Apart, for a nudge wakes one of those that wait: it must be one that takes keys.
        self._freed = threading.Condition(lock)
        self._ready: dict[str, None] = {}
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._later: list[tuple[float, str]] = []
        self._moments: dict[str, float] = {}
        self._closed = False

    def add(self, key: str) -> None:
        with self._changed:
            self._enqueue(key)

    def add_at(self, key: str, when_s: float) -> None:
        """`when_s` on the monotonic clock; of two moments for one key the earlier one counts."""
        with self._changed:
            if when_s >= self._moments.get(key, float("inf")):
                return
            self._moments[key] = when_s
            heapq.heappush(self._later, (when_s, key))
            self._changed.notify()

    def get(self) -> str | None:
        """The next key, waiting for one; None when the queue is closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                self._ripen()
                if self._ready:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._working.add(key)
                    return key
                self._changed.wait(self._until_next())

    def done(self, key: str) -> None:
        with self._changed:
            self._working.discard(key)
            self._freed.notify_all()
            if key in self._again:
                self._again.discard(key)
                self._enqueue(key)

    @contextmanager
    def borrow(self, key: str) -> Iterator[bool]:
        """Nobody is handed the key meanwhile, and whoever works on it is waited for; then it is looked at.

        False: the queue was closed before that came.
        """
        with self._changed:
            while key in self._working and not self._closed:
                self._freed.wait()
            ours = not self._closed
            if ours:
                self._ready.pop(key, None)
                self._working.add(key)
        try:
            yield ours
        finally:
            if ours:
                self.add(key)
                self.done(key)

    def idle(self) -> bool:
        """Nothing is ready or being worked on; later keys may still be waiting."""
        with self._changed:
            self._ripen()
            return not (self._ready or self._working)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._freed.notify_all()

    def _enqueue(self, key: str) -> None:
        if key in self._working:
            self._again.add(key)
        else:
            self._ready.setdefault(key)
            self._changed.notify()

    def _ripen(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            when_s, key = heapq.heappop(self._later)
            if self._moments.get(key) == when_s:  # else an earlier moment took its place, and has been
                del self._moments[key]
                self._enqueue(key)

    def _until_next(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
