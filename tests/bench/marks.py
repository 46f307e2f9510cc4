"""Hears from the workloads themselves that they run: each writes a file in one directory, watched by inotify."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Collection
from pathlib import Path

IN_CLOSE_WRITE = 0x08
EVENT = struct.Struct("iIII")
INSIDE = "/mark"


class Marks:
    """`directory` is bind-mounted into every container at /mark; a container announces itself by its name."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self._inotify, os.fsencode(directory), IN_CLOSE_WRITE) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def wait(self, names: Collection[str], wait_s: float) -> float:
        """Until each of these has announced itself since the last call → the moment of the last, monotonic."""
        missing, deadline = set(names), time.monotonic() + wait_s
        at = time.monotonic()
        while missing:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not running within {wait_s} s: {sorted(missing)}")
            if select.select([self._inotify], [], [], left)[0]:
                at = time.monotonic()
                missing -= self._heard()
        return at

    def forget(self) -> None:
        """Whatever was announced before does not count."""
        while select.select([self._inotify], [], [], 0)[0]:
            self._heard()

    def close(self) -> None:
        os.close(self._inotify)

    def _heard(self) -> set[str]:
        data, offset, names = os.read(self._inotify, 65536), 0, set()
        while offset < len(data):
            *_, length = EVENT.unpack_from(data, offset)
            start = offset + EVENT.size
            names.add(data[start : start + length].rstrip(b"\0").decode())
            offset = start + length
        return names


def announcing(name: str) -> list[str]:
    """The arguments of a workload that says that it runs, and then sleeps."""
    return ["/bin/sh", "-c", f"echo > {INSIDE}/{name}; exec /bin/sleep 100000"]
