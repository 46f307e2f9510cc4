"""The Snapshots port: what is in a container's layer, copied while it stands still, and put in its place again.

Beside a layer's `upper` there are, only during a restore, `coming` (files of a checkpoint, or what is being thrown
away) and `kept` (the files that were there before). `kept` is made and taken away by one rename each, so that
whoever finds it knows that the restore was neither finished nor undone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from controller.host.places import Places
from controller.host.removal import remove_deep
from controller.host.syscalls import free_bytes, syncfs
from controller.host.text import failed, make_private, no_room
from controller.model.checkpoint import LayerCopy, Pending
from controller.model.space import CONTENT, ROOTFS, Space

if TYPE_CHECKING:
    from controller.checkpoints.manifest import Entry, Piece
    from controller.host.checkpoints.trees import TreeFile

UPPER, COMING, KEPT = "upper", "coming", "kept"
_FICLONE: Final = 0x40049409
_CANNOT_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_CANNOT_COPY_INSIDE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class LayerSnapshots:
    """Every method may be called from any thread, for one container by one at a time."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def copier(self, name: str, min_free: int) -> Callable[[], LayerCopy]:
        from controller.host.checkpoints import trees  # noqa: F401, PLC0415 - else loaded while all stands still

        target = self._snapshot(name)
        self.drop(name)
        make_private(self._places.snapshots)
        make_private(target)
        return lambda: self._copy(f"{self._layer(name)}/{UPPER}", target, min_free)

    def drop(self, name: str) -> None:
        path = self._snapshot(name)
        self._try("removing", path, lambda: _remove(path))

    def incoming(self, name: str) -> str:
        path = f"{self._layer(name)}/{COMING}"
        self._try("removing", path, lambda: _remove(path))
        return path

    def swap(self, name: str) -> None:
        layer = self._layer(name)

        def work() -> None:
            os.rename(f"{layer}/{UPPER}", f"{layer}/{KEPT}")
            os.rename(f"{layer}/{COMING}", f"{layer}/{UPPER}")

        self._try("putting files of a checkpoint in", layer, work)

    def put_back(self, name: str) -> None:
        layer = self._layer(name)

        def work() -> None:
            if os.path.lexists(f"{layer}/{KEPT}"):
                _remove(f"{layer}/{UPPER}")
                os.rename(f"{layer}/{KEPT}", f"{layer}/{UPPER}")
            _remove(f"{layer}/{COMING}")

        self._try("putting back the files of", layer, work)

    def settle(self, name: str) -> None:
        layer = self._layer(name)

        def work() -> None:
            _remove(f"{layer}/{COMING}")
            if os.path.lexists(f"{layer}/{KEPT}"):
                syncfs(layer)  # what came is on disk before what it replaces goes
                os.rename(f"{layer}/{KEPT}", f"{layer}/{COMING}")
                _remove(f"{layer}/{COMING}")

        self._try("removing the files before the restore of", layer, work)

    def pending(self, name: str) -> Pending:
        layer = self._layer(name)
        if os.path.lexists(f"{layer}/{KEPT}"):
            return "swapped"
        return "coming" if os.path.lexists(f"{layer}/{COMING}") else ""

    def _copy(self, source: str, target: str, min_free: int) -> LayerCopy:
        before = time.monotonic()
        copier = _Copier(target, min_free)
        try:
            copier.copy(source, target)
        except OSError as error:
            raise failed(error, "copying the files of the layer", error.filename or source) from error
        took_ms = round((time.monotonic() - before) * 1000)
        return LayerCopy(target, copier.copied, copier.cloned, took_ms)

    def _try(self, doing: str, path: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            raise failed(error, doing, error.filename or path) from error

    def _snapshot(self, name: str) -> str:
        return f"{self._places.snapshots}/{name}"

    def _layer(self, name: str) -> str:
        space = f"{self._places.spaces}/{Space(ROOTFS, name).text}"
        return f"{space}/{CONTENT}" if os.path.lexists(f"{space}/frame") else f"{self._places.layers}/{name}"


class _Copier:
    """A tree with owners, times, holes and hard links. Files share their blocks where the file system can."""

    def __init__(self, target: str, min_free: int) -> None:
        self.copied = self.cloned = 0
        self._target, self._min_free, self._free = target, min_free, free_bytes(target)
        self._can_clone = True
        self._source: TreeFile | None = None

    def copy(self, source: str, target: str) -> None:
        from controller.host.checkpoints.trees import Building, scan  # noqa: PLC0415 - only when there is a tree

        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            building = Building(descriptor)
            entries: list[Entry] = []
            for entry, self._source in scan(source):
                entries.append(entry)
                if entry.path != ".":
                    building.make(entry, self)
            building.finish(entries)
        finally:
            os.close(descriptor)

    def write(self, descriptor: int, size: int, pieces: tuple[Piece, ...]) -> None:
        del pieces
        source = self._source
        if source is None:
            return
        if self._clone(source.descriptor, descriptor):
            self.cloned += size
            return
        needed = self.copied + sum(end - start for start, end in source.extents)
        if self._free - needed < self._min_free:
            raise no_room(self._target, self._free, self._min_free)
        os.ftruncate(descriptor, size)
        for start, end in source.extents:
            _copy_range(source.descriptor, descriptor, start, end)
            self.copied += end - start

    def _clone(self, source: int, target: int) -> bool:
        """man 2 ioctl_ficlone."""
        if not self._can_clone:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
            self._can_clone = False
        return self._can_clone


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    """Inside the kernel; what became shorter meanwhile is a hole."""
    at = start
    os.lseek(target, start, os.SEEK_SET)
    while at < end:
        try:
            done = os.copy_file_range(source, target, end - at, at, at)
        except OSError as error:
            if error.errno not in _CANNOT_COPY_INSIDE:
                raise
            os.lseek(target, at, os.SEEK_SET)
            done = os.sendfile(target, source, at, end - at)
        if not done:
            return
        at += done


def _remove(path: str) -> None:
    if os.path.lexists(path):
        remove_deep(path)
