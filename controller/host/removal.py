"""Removes what a container may have filled: deeper than any stack, wider than memory, and full of links."""

from __future__ import annotations

import errno
import os
from itertools import islice
from typing import Final

from controller.host import syscalls

_BATCH: Final = 1000
"""Names of one directory that are held at a time."""
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_deep(path: str) -> None:
    """A directory and all below it, with a few descriptors however deep that is: the others are needed elsewhere.

    No link is followed, and EXDEV is raised where something is mounted, which stays; a subvolume of btrfs is a
    directory like any. Raises OSError, FileNotFoundError for a path that is not there.
    """
    walk = _Walk(path)
    try:
        walk.to_the_end()
    finally:
        walk.close()
    os.rmdir(path)


class _Walk:
    """Down into a directory and up again through `..`, which has to be the one that it came from."""

    def __init__(self, path: str) -> None:
        self._here = os.open(path, _READ)
        self._below: list[str] = []
        self._above: list[tuple[tuple[int, int], list[str]]] = []

    def close(self) -> None:
        os.close(self._here)

    def to_the_end(self) -> None:
        """Empty the topmost directory."""
        self._below = self._cleared()
        while self._below or self._above:
            if self._below:
                self._down(self._below[-1])
            else:
                self._up()
            self._below = self._below or self._cleared()

    def _cleared(self) -> list[str]:
        """Remove files until a batch has directories in it: their names. None are left: the directory is empty."""
        while True:
            with os.scandir(self._here) as entries:
                batch = [(each.name, each.is_dir(follow_symlinks=False)) for each in islice(entries, _BATCH)]
            for name in (name for name, is_directory in batch if not is_directory):
                os.unlink(name, dir_fd=self._here)
            directories = [name for name, is_directory in batch if is_directory]
            if directories or not batch:
                return directories

    def _down(self, name: str) -> None:
        found = syscalls.open_plain(self._here, name, across=False)
        try:
            below = os.open(".", _READ, dir_fd=found)
        finally:
            os.close(found)
        self._above.append((_identity(self._here), self._below))
        self._move(below)
        self._below = []

    def _up(self) -> None:
        known, names = self._above.pop()
        self._move(os.open("..", _READ, dir_fd=self._here))
        if _identity(self._here) != known:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # somebody has moved it
        os.rmdir(names.pop(), dir_fd=self._here)
        self._below = names

    def _move(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
