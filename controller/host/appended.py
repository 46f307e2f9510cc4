"""A file to which lines are appended: opened anew when somebody has put it aside, and put aside itself."""

from __future__ import annotations

import contextlib
import os

from controller.host.text import open_for_writing


class AppendedFile:
    """For one caller at a time. Everything raises OSError.

    `directory_mode`: of the directories that are made for it. `secret`: it is no link, and nobody else may read it,
    whatever was there before.
    """

    def __init__(self, path: str, directory_mode: int, *, secret: bool = False) -> None:
        self.path = path
        self._directory_mode, self._secret = directory_mode, secret
        self.descriptor, self._inode = -1, 0
        """-1 as long as it is closed."""

    def opened(self) -> int:
        """→ its size. It is left open."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
            if self.descriptor >= 0 and found.st_ino == self._inode:
                return found.st_size
        self.close()
        flags = os.O_APPEND | (os.O_NOFOLLOW if self._secret else 0)
        self.descriptor = open_for_writing(self.path, flags, self._directory_mode)
        if self._secret:
            os.fchmod(self.descriptor, 0o600)
        found = os.fstat(self.descriptor)
        self._inode = found.st_ino
        return found.st_size

    def put_aside(self, kept: int) -> None:
        """As .1, which becomes .2, and so on up to `kept`."""
        self.close()
        for number in range(kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.replace(self.path, f"{self.path}.1")

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor, self._inode = -1, 0
