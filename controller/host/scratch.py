"""The Scratches port: directories in memory, each a tmpfs of its own.

What a container had in its memory is seen by root alone, never reaches a swap device, and fills no more of the
host's memory than is free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterable
from typing import Final

from controller.errors import StepFailed
from controller.host import syscalls
from controller.host.new_mount import NO_SWAP, attach, tmpfs
from controller.host.syscalls import free_bytes
from controller.host.text import failed, make_private, read_text, remove_tree, write_atomic

IMAGES: Final = "images"
_KEPT_FREE: Final = 16
"""One part in so many of the memory that is available is left to everybody else."""
_LEAST_MARGIN: Final = 128 << 20
_MARGIN: Final = 4
"""One part in so many is added to what images are known to need: a container goes on until it stands still."""
_SMALLEST: Final = 1 << 20
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s*(\d+) kB$", re.MULTILINE)
_HUGE: Final = ("huge", "within_size")
"""Pages as large as what is written at once (since 6.14) take a third of the time, while everything stands still;
small files take no more room for it."""
_EXTRAS: Final = ((NO_SWAP, _HUGE), (NO_SWAP,), (_HUGE,))


class ScratchDirectories:
    """`<run>/scratch/<name>/`: images, and notes beside them. Thread-safe; one process at a time."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._lock = threading.Lock()

    def names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._base))
        except FileNotFoundError:
            return frozenset()

    def room(self, name: str) -> int:
        """Bytes. proc_meminfo(5): MemAvailable, what new programs can have without swapping.

        What others than `name` were promised and have not used yet is theirs.
        """
        found = _AVAILABLE.search(read_text("/proc/meminfo") or "")
        available = int(found[1]) * 1024 if found else 0
        return max(available - available // _KEPT_FREE - self._promised(self.names() - {name}), 0)

    def make(self, name: str, need: int) -> str:
        path = f"{self._base}/{name}"
        with self._lock:
            make_private(self._base)
            try:
                self._take(path)
                size = self._size(name, path, need)
                os.mkdir(path, 0o700)
                tree = tmpfs("masu-scratch", size, _EXTRAS)
                try:
                    attach(tree, path)
                finally:
                    os.close(tree)
                os.mkdir(f"{path}/{IMAGES}", 0o700)
            except OSError as error:
                raise failed(error, "making", path) from error
        return self.images(name)

    def images(self, name: str) -> str:
        return f"{self._base}/{name}/{IMAGES}"

    def note(self, name: str, key: str, text: str) -> None:
        write_atomic(f"{self._base}/{name}/{key}", text, durable=False)

    def noted(self, name: str, key: str) -> str:
        return read_text(f"{self._base}/{name}/{key}") or ""

    def remove(self, name: str) -> None:
        path = f"{self._base}/{name}"
        with self._lock:
            try:
                self._take(path)
            except OSError as error:
                raise failed(error, "removing", path) from error
            with contextlib.suppress(OSError):
                os.rmdir(self._base)

    def _size(self, name: str, path: str, need: int) -> int:
        room = self.room(name)
        if need > room:
            raise StepFailed(
                f"making {path}: {need} bytes are needed in memory, and {room} are free",
                path=path,
                errno=errno.ENOMEM,
            )
        return max(min(need + max(need // _MARGIN, _LEAST_MARGIN), room), _SMALLEST)

    def _promised(self, names: Iterable[str]) -> int:
        free = 0
        for name in names:
            with contextlib.suppress(OSError):  # it has just gone
                if os.path.ismount(f"{self._base}/{name}"):
                    free += free_bytes(f"{self._base}/{name}")
        return free

    def _take(self, path: str) -> None:
        """Also from under somebody who looks at it: the memory is free when he has looked."""
        while os.path.ismount(path):
            syscalls.detach_mount(path)
        remove_tree(path)
