"""The Scratches port: directories in memory, each a tmpfs of its own.

What a container had in its memory is seen by root alone, never reaches a swap device, and fills no more of the
host's memory than is free.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from typing import Final

from controller.host import syscalls
from controller.host.new_mount import MountRefused, attach, new_mount
from controller.host.syscalls import MountAttr
from controller.host.text import failed, make_private, read_text, remove_tree, write_atomic

IMAGES: Final = "images"
_KEPT_FREE: Final = 16
"""One part in so many of the memory that is available is left to everybody else."""
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s*(\d+) kB$", re.MULTILINE)
_NO_SWAP: Final = ("noswap", None)
"""Since Linux 6.4."""
_HUGE: Final = ("huge", "within_size")
"""Pages as large as what is written at once (since 6.14) take a third of the time, while everything stands still;
small files take no more room for it."""
_EXTRAS: Final = ((_NO_SWAP, _HUGE), (_NO_SWAP,), (_HUGE,), ())
_ATTRIBUTES: Final = MountAttr.NOSUID | MountAttr.NOEXEC | MountAttr.NODEV


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

    def room(self) -> int:
        """Bytes. proc_meminfo(5): MemAvailable, what new programs can have without swapping."""
        found = _AVAILABLE.search(read_text("/proc/meminfo") or "")
        available = int(found[1]) * 1024 if found else 0
        return max(available - available // _KEPT_FREE, 1 << 20)

    def make(self, name: str) -> str:
        path = f"{self._base}/{name}"
        with self._lock:
            make_private(self._base)
            try:
                self._take(path)
                os.mkdir(path, 0o700)
                tree = _tmpfs(self.room())
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

    def _take(self, path: str) -> None:
        """Also from under somebody who looks at it: the memory is free when he has looked."""
        while os.path.ismount(path):
            syscalls.detach_mount(path)
        remove_tree(path)


def _tmpfs(size: int) -> int:
    """A descriptor of its mount, with as many of the extras as the kernel can."""
    settings = [("source", "masu-scratch"), ("mode", "0700"), ("size", str(size))]
    for extras in _EXTRAS[:-1]:
        with contextlib.suppress(MountRefused):
            return new_mount("tmpfs", [*settings, *extras], _ATTRIBUTES)
    return new_mount("tmpfs", [*settings, *_EXTRAS[-1]], _ATTRIBUTES)
