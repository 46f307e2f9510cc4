"""RLIMIT_MEMLOCK of this process, lifted for a moment: it is one limit for all threads.

Before Linux 5.11 BPF programs count as locked memory, and the usual limit holds some sixteen of them.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator


class LockedMemory:
    """Thread-safe. One at a time: of two that overlap, the first to end would put back the limit of both, and the
    last would leave it lifted for good, because that is how it has found it."""

    def __init__(self) -> None:
        self._lifting = threading.Lock()

    @contextlib.contextmanager
    def unlimited(self) -> Iterator[None]:
        """As far as this process may raise it; what is started meanwhile by another thread inherits that."""
        with self._lifting:
            before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            try:
                _raise(before[1])
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def _raise(hard: int) -> None:
    """Beyond `hard` with CAP_SYS_RESOURCE alone: setrlimit(2)."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
