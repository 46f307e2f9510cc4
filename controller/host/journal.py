"""The event file: whole lines appended at once, rotated by size, followed by polling."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import TextIO

from controller.errors import NOT_UNDERSTOOD
from controller.host.appended import AppendedFile
from controller.model.event import Event

MAX_BYTES = 4 * 1024 * 1024
POLL_S = 0.1


class Journal:
    """Writing never raises: a full disk must not stop a repair. Lines that are lost are counted.

    One process writes at a time, from any number of threads; readers are other processes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = AppendedFile(path, 0o711)
        self.lost = 0

    def append(self, event: Event) -> None:
        try:
            with self._lock:
                self._append(event.to_line().encode())
        except Exception:  # noqa: BLE001
            self.lost += 1

    def _append(self, line: bytes) -> None:
        size = self._file.opened()
        os.write(self._file.descriptor, line)
        if size + len(line) > MAX_BYTES:
            self._file.put_aside(1)

    def read(self, *, container: str = "", tail: int = -1, follow: bool = False) -> Iterator[Event]:
        """Oldest first, the last `tail` of what there is (all when negative); torn lines are passed over.

        `container`: of this one alone. With `follow` for ever what comes, too, across rotations.
        """
        past = 0 if tail < 0 else sum(1 for _ in self._of(container, follow=False)) - tail
        yield from islice(self._of(container, follow=follow), max(0, past), None)

    def _of(self, container: str, *, follow: bool) -> Iterator[Event]:
        return (each for each in self._read(follow=follow) if container in {"", each.container})

    def _read(self, *, follow: bool) -> Iterator[Event]:
        with contextlib.suppress(FileNotFoundError), _open(self._path + ".1") as old:
            yield from _events(old)
        while True:
            with contextlib.suppress(FileNotFoundError), _open(self._path) as lines:
                yield from _events(lines)
                while follow and not _replaced(lines, self._path):
                    time.sleep(POLL_S)
                    yield from _events(lines)
                yield from _events(lines)
            if not follow:
                return
            time.sleep(POLL_S)


def _open(path: str) -> TextIO:
    return open(path, encoding="utf-8", errors="replace")


def _events(lines: TextIO) -> Iterator[Event]:
    """Up to the end; half a line is left for the next time."""
    while True:
        before, line = lines.tell(), lines.readline()
        if not line.endswith("\n"):
            lines.seek(before)
            return
        with contextlib.suppress(*NOT_UNDERSTOOD):
            yield Event.from_line(line)


def _replaced(lines: TextIO, path: str) -> bool:
    try:
        return os.fstat(lines.fileno()).st_ino != os.stat(path).st_ino
    except FileNotFoundError:
        return True
