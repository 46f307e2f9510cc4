"""The event file: whole lines appended at once, rotated by size, followed by polling its size."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from controller.host.text import open_for_writing
from controller.model.event import Event

MAX_BYTES = 4 * 1024 * 1024
POLL_S = 0.1


class Journal:
    """Writing never raises: a full disk must not stop a repair. Lines that are lost are counted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.lost = 0

    def append(self, event: Event) -> None:
        try:
            descriptor = open_for_writing(self._path, os.O_APPEND, 0o711)
            try:
                os.write(descriptor, event.to_line().encode())
                too_large = os.fstat(descriptor).st_size > MAX_BYTES
            finally:
                os.close(descriptor)
            if too_large:
                os.replace(self._path, self._path + ".1")
        except Exception:  # noqa: BLE001
            self.lost += 1

    def read(self) -> Iterator[Event]:
        """Oldest first; torn lines are passed over."""
        for path in (self._path + ".1", self._path):
            with (
                contextlib.suppress(FileNotFoundError),
                open(path, encoding="utf-8", errors="replace") as lines,
            ):
                yield from _events(lines)

    def follow(self) -> Iterator[Event]:
        """What is appended from now on, for ever; survives rotation."""
        position, inode = _end(self._path)
        while True:
            size, now = _end(self._path)
            if now != inode or size < position:
                position, inode = 0, now
            if size > position:
                with open(self._path, encoding="utf-8", errors="replace") as lines:
                    lines.seek(position)
                    yield from _events(lines)
                    position = lines.tell()
            time.sleep(POLL_S)


def _events(lines: object) -> Iterator[Event]:
    while line := lines.readline():  # type: ignore[attr-defined]
        with contextlib.suppress(ValueError, TypeError):
            yield Event.from_line(line)


def _end(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_ino
