"""Nudges from watchdog: something below a path may have changed. An event is never more than a reason to look."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

POLL_S = 0.5
QUIET = frozenset({"opened", "closed_no_write", "modified"})
"""A file that is only read, or is still being written, is no reason to look."""


class Watch:
    """Watches until `close`. A root that vanishes, comes back or is replaced is found by looking twice a second.

    `degraded` says why only polling is left, and is empty otherwise.
    """

    def __init__(self, root: str, nudge: Callable[[], None]) -> None:
        self._root, self._nudge = root, nudge
        self.degraded = ""
        self._observer: Any = None
        self._watched = 0, 0
        self._closed = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._poll, name="source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)
        self._drop()

    def _poll(self) -> None:
        while not self._closed.wait(POLL_S):
            if _identity(self._root) != self._watched or not self._alive():
                self._renew()
                self._nudge()
            elif self.degraded:
                self._nudge()

    def _alive(self) -> bool:
        return self._observer is None or bool(self._observer.is_alive())

    def _renew(self) -> None:
        self._drop()
        self._watched = _identity(self._root)
        if self._watched == (0, 0):
            return
        try:
            self._observe()
            self.degraded = ""
        except OSError as error:
            self._observer = None
            self.degraded = (
                f"inotify does not work ({os.strerror(error.errno or 0)}): looking every {POLL_S} s"
            )

    def _observe(self) -> None:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler  # noqa: PLC0415
        from watchdog.observers.inotify import InotifyObserver  # noqa: PLC0415

        nudge = self._nudge

        class Listener(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in QUIET:
                    nudge()

        directory = self._root if os.path.isdir(self._root) else os.path.dirname(self._root) or "."
        observer = InotifyObserver()
        observer.schedule(Listener(), directory, recursive=os.path.isdir(self._root))
        observer.start()
        self._observer = observer

    def _drop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(5)


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
