"""Copies of file-system trees on the host: owners, times, holes and hard links, blocks shared where that can be.

A tree may be copied twice, first while somebody works in it and then while nobody does: the second time takes what
has changed since. Whether something has is told by its times, and those of a file that is mapped for writing are
set when a page of it is first written to after it was clean (mm/memory.c, do_page_mkwrite). So everything is
written to the disk before the first time, and whatever was changed since that began counts as changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from controller.host.syscalls import free_bytes, statfs_type, syncfs
from controller.host.text import no_room

if TYPE_CHECKING:
    from controller.checkpoints.manifest import Entry, Piece
    from controller.host.checkpoints.trees import Building, TreeFile

_FICLONE: Final = 0x40049409
_CANNOT_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_CANNOT_COPY_INSIDE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_WRITES_BACK: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010})
"""ext2 to ext4, xfs, btrfs, f2fs (linux/magic.h). Elsewhere, as on a tmpfs, mapped pages are written to unseen."""
_SECTOR: Final = 512
_COARSE_NS: Final = 50_000_000
"""Times of files are those of the last tick of the clock."""
MOST_REMEMBERED: Final = 200_000
WORTH_IT: Final = 4 << 20
"""Bytes: less is copied faster than it is looked at twice."""


class TreeCopier:
    """From one tree to one directory that belongs to root alone. `copied` and `cloned`: bytes, of the last time."""

    def __init__(self, target: str, min_free: int) -> None:
        # Only when there is a tree, but before anything stands still for it.
        from controller.host.checkpoints import trees  # noqa: PLC0415

        self._trees = trees
        self.copied = self.cloned = 0
        self._target, self._min_free, self._free = target, min_free, free_bytes(target)
        self._can_clone = True
        self._source: TreeFile | None = None
        self._known = _Known()

    def copy_ahead(self, source: str) -> None:
        """While somebody works in it: nothing that comes of it is of any use before `copy` was called."""
        if statfs_type(source) not in _WRITES_BACK or not _is_large(source):
            return
        self._known = _Known(time.time_ns() - _COARSE_NS)
        syncfs(source)
        self._copy(source, live=True)
        self._known.ready = True

    def copy(self, source: str) -> None:
        """What is there now, and nothing else."""
        self._copy(source, live=False)

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

    def _copy(self, source: str, *, live: bool) -> None:
        self.copied = self.cloned = 0
        self._free = free_bytes(self._target)
        descriptor = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            building = self._trees.Building(descriptor)
            if not self._known.usable:
                for name in os.listdir(descriptor):
                    building.remove(name)
            entries: list[Entry] = []
            for entry, file in self._trees.scan(source, self._known, live=live):
                self._source = file
                entries.append(entry)
                if entry.path != "." and not (self._known.usable and _stays(building, entry)):
                    building.make(entry, self)
            for path in self._known.gone():
                building.remove(path)
            building.finish(entries)
        finally:
            os.close(descriptor)

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


class _Known:
    """What was there the first time, and when that began: `since`, nanoseconds since 1970; 0: there was none."""

    def __init__(self, since: int = 0) -> None:
        self._since, self._seen = since, dict[str, tuple[int, ...]]()
        self._there: set[str] = set()
        self.ready = False

    @property
    def usable(self) -> bool:
        return self.ready and len(self._seen) <= MOST_REMEMBERED

    def passes(self, path: str, seen: os.stat_result) -> bool:
        """Whether it is what it was; the first time, nothing is."""
        if not self.ready:
            if self._since and len(self._seen) <= MOST_REMEMBERED:
                self._seen[path] = _traits(seen)
            return False
        self._there.add(path)
        return self.usable and seen.st_ctime_ns < self._since and self._seen.get(path) == _traits(seen)

    def gone(self) -> list[str]:
        """What is not there any more, and what is in a directory before that."""
        return sorted(self._seen.keys() - self._there, reverse=True) if self.usable else []


def _stays(building: Building, entry: Entry) -> bool:
    """A directory of the first time does; anything else makes way."""
    if entry.kind == "directory" and building.holds(entry.path):
        return True
    building.remove(entry.path)
    return False


def _traits(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_nlink


def _is_large(root: str) -> bool:
    """Whether there is so much in it that it is better looked at twice than copied at once."""
    left, waiting = WORTH_IT, [root]
    while waiting and left > 0:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    waiting.append(each.path)
                elif each.is_file(follow_symlinks=False):
                    left -= each.stat(follow_symlinks=False).st_blocks * _SECTOR
    return left <= 0


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
