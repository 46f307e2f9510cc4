"""Copies of file-system trees on the host: owners, times, holes and hard links, blocks shared where that can be."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from controller.host.syscalls import free_bytes
from controller.host.text import no_room

if TYPE_CHECKING:
    from controller.checkpoints.manifest import Entry, Piece
    from controller.host.checkpoints.trees import TreeFile

_FICLONE: Final = 0x40049409
_CANNOT_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_CANNOT_COPY_INSIDE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class TreeCopier:
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
