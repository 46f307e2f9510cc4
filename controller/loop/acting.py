"""Who is acting on a container: one checkpoint, one restore at a time, from the dump until it is stored.

Apart from the work queue: a container is repaired, and started again, while its checkpoint is still being stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.errors import StepFailed


class Acting:
    """Thread-safe. `ended` is told the name after an `act`, for whoever has to look at the container then."""

    def __init__(self, ended: Callable[[str], object]) -> None:
        self._ended = ended
        self._changed = threading.Condition()
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        with self._changed:
            return name in self._names

    def begin(self, name: str, patience_s: float = 0.0) -> bool:
        """False: somebody else is at it, and was for so long. Else `end` has to follow."""
        with self._changed:
            if not self._changed.wait_for(lambda: name not in self._names, patience_s):
                return False
            self._names.add(name)
            return True

    def end(self, name: str) -> None:
        with self._changed:
            self._names.discard(name)
            self._changed.notify_all()

    @contextmanager
    def act(self, name: str, patience_s: float = 0.0) -> Iterator[None]:
        """Raises StepFailed when somebody else is at it."""
        if not self.begin(name, patience_s):
            raise StepFailed(f"another checkpoint or restore of {name} is under way")
        try:
            yield
        finally:
            self.end(name)
            self._ended(name)
