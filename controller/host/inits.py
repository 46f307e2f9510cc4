"""Pidfds of inits that are watched: they tell how one has ended that the keeper was not there to wait for."""

from __future__ import annotations

import contextlib
import os
import threading

from controller.host.keeper.proc import code_and_signal, exit_status
from controller.model.launch import Ended


class Inits:
    """Thread-safe. One for each container, which stays open when that init has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[int, int]] = {}

    def hold(self, name: str, pid: int, pidfd: int) -> None:
        """A copy of `pidfd`, instead of the one of an earlier init; none, if no descriptor is left."""
        with self._lock:
            self._close(name)
            with contextlib.suppress(OSError):
                self._held[name] = (pid, os.dup(pidfd))

    def release(self, name: str) -> None:
        with self._lock:
            self._close(name)

    def _close(self, name: str) -> None:
        _, before = self._held.pop(name, (0, -1))
        if before >= 0:
            os.close(before)

    def end_of(self, name: str, pid: int) -> Ended | None:
        """Of this init; None: not known, or not yet."""
        with self._lock:
            held, pidfd = self._held.get(name, (0, -1))
            status = exit_status(pid, pidfd) if pidfd >= 0 and held == pid else None
        return None if status is None else Ended(*code_and_signal(status))
