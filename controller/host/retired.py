"""Descriptors that are done with, while the thread that waits for them may still hold events with their numbers."""

from __future__ import annotations

import contextlib
import os
import select
import threading


class Retired:
    """Thread-safe. A number is free for others only when its descriptor is closed, and that is done by the waiting
    thread, between two waits: so what a wait has returned is of the descriptor that has the number, or of none."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll, self._lock = epoll, threading.Lock()
        self._descriptors: list[int] = []
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        epoll.register(self._waker, select.EPOLLIN)

    def add(self, descriptor: int) -> None:
        """Nothing comes from it any more; it is closed as soon as the waiting thread is awake."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)
        with self._lock:
            self._descriptors.append(descriptor)
            os.eventfd_write(self._waker, 1)

    def close_all(self) -> None:
        """From the waiting thread, before it waits. Whoever adds one meanwhile does not wait for that.

        With a mount table may end the whole mount namespace, which takes milliseconds.
        """
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._waker)
            done, self._descriptors = self._descriptors, []
        for descriptor in done:
            os.close(descriptor)

    def close(self) -> None:
        self.close_all()
        os.close(self._waker)
