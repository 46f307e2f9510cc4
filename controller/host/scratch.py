"""The Scratches port: directories in memory, on a tmpfs of masu's own where /run is none."""

from __future__ import annotations

import contextlib
import os
import threading

from controller.host import syscalls
from controller.host.departure import is_on_tmpfs
from controller.host.text import failed, make_directories, read_text, remove_tree, write_atomic

IMAGES = "images"


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

    def make(self, name: str) -> str:
        with self._lock:
            try:
                self._mount()
                remove_tree(f"{self._base}/{name}")
                os.makedirs(f"{self._base}/{name}/{IMAGES}", 0o700)
            except OSError as error:
                raise failed(error, "making", f"{self._base}/{name}") from error
        return self.images(name)

    def images(self, name: str) -> str:
        return f"{self._base}/{name}/{IMAGES}"

    def note(self, name: str, key: str, text: str) -> None:
        write_atomic(f"{self._base}/{name}/{key}", text, durable=False)

    def noted(self, name: str, key: str) -> str:
        return read_text(f"{self._base}/{name}/{key}") or ""

    def remove(self, name: str) -> None:
        """The last one takes the tmpfs with it, unless somebody looks at it just now: then the next one does."""
        with self._lock:
            remove_tree(f"{self._base}/{name}")
            with contextlib.suppress(OSError):
                if os.path.ismount(self._base) and not os.listdir(self._base):
                    syscalls.unmount(self._base)
                os.rmdir(self._base)

    def _mount(self) -> None:
        make_directories(self._base)
        if is_on_tmpfs(self._base):
            return
        context = syscalls.fsopen("tmpfs")
        target = os.open(self._base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for key, value in (("source", "masu-scratch"), ("mode", "0700")):
                syscalls.fsconfig_set(context, key, value)
            syscalls.fsconfig_create(context)
            attributes = syscalls.MountAttr.NOSUID | syscalls.MountAttr.NOEXEC | syscalls.MountAttr.NODEV
            tree = syscalls.fsmount(context, attributes)
            syscalls.move_mount(tree, target)
            os.close(tree)
        finally:
            os.close(context)
            os.close(target)
