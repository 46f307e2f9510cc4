"""Whether root alone decides what a repository on this host says. Looks at modes, and reads where else it leads.

Not at objects themselves: git takes none that is another one than its name says. What names them counts.
"""

from __future__ import annotations

import contextlib
import os
import stat

from controller.host.trust import distrust, doubtful

PLACES = ("/.git", "", ".git/.git", ".git")
"""Behind its path: where git-upload-pack(1) looks for it."""
SAYING = ("HEAD", "config", "config.worktree", "packed-refs", "shallow", "info", "refs", "reftable")
"""Files, and directories with all that is in them. gitrepository-layout(5)."""
MOST = 50_000
"""Names that are looked at, which takes half a second."""
MOST_TEXT = 1 << 16


def distrusted(path: str) -> str:
    """Read-only. Why others than root may change what is fetched from it, in words; "": nobody may.

    Also where so much is in it that not all can be looked at, or a link of it leads to nothing. One that is not
    there is nobody's.
    """
    if not os.path.exists(path):
        return ""
    try:
        _Look().repository(path.rstrip("/"))
    except _Doubtful as doubt:
        return str(doubt)
    except OSError as error:
        return f"{error.filename}: {os.strerror(error.errno or 0)}"
    return ""


class _Doubtful(Exception):
    """Why."""


class _Look:
    """One look. All of it raises _Doubtful, and OSError."""

    def __init__(self) -> None:
        self._left = MOST
        self._seen: set[str] = set()

    def repository(self, path: str) -> None:
        self._chain(path)
        for each in (f"{path}{place}" for place in PLACES):
            if os.path.isfile(each):
                self._is_roots(each)
                self._git_directory(_leads(each, os.path.dirname(each), "gitdir: "))
            elif os.path.lexists(f"{each}/HEAD"):
                self._git_directory(each)

    def _git_directory(self, directory: str) -> None:
        """With the one that it has refs and objects of, if it is of a worktree."""
        common = directory
        if self._is_roots(f"{directory}/commondir"):
            common = _leads(f"{directory}/commondir", directory)
        for each in dict.fromkeys((directory, common)):
            self._chain(each)
            for name in SAYING:
                self._whole(f"{each}/{name}")
            self._objects(f"{each}/objects")

    def _objects(self, directory: str) -> None:
        """Directories alone, and those that are lent."""
        if not os.path.isdir(directory) or os.path.realpath(directory) in self._seen:
            return
        self._seen.add(os.path.realpath(directory))
        self._chain(directory)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir():
                    self._is_roots(entry.path)
        self._whole(f"{directory}/info")
        for line in _text(f"{directory}/info/alternates").splitlines():
            if line.startswith('"'):
                raise _Doubtful(f"{directory}/info/alternates names one in quotes, which is not understood")
            if line and not line.startswith("#"):
                self._objects(os.path.normpath(os.path.join(directory, line)))

    def _whole(self, path: str) -> None:
        """With all that is in it, if it is a directory."""
        left = [path]
        while left:
            each = left.pop()
            if not self._is_roots(each) or not os.path.isdir(each):
                continue
            if os.path.realpath(each) not in self._seen:
                self._seen.add(os.path.realpath(each))
                with (
                    contextlib.suppress(FileNotFoundError),
                    os.scandir(each) as entries,
                ):  # root may remove it
                    left += [entry.path for entry in entries]

    def _is_roots(self, path: str) -> bool:
        """False: it is not there."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return False
        self._left -= 1
        if self._left < 0:
            raise _Doubtful(f"more than {MOST} names in it would have to be looked at (git pack-refs --all)")
        why = doubtful(found)
        if why:
            raise _Doubtful(f"{path} {why}")
        if stat.S_ISLNK(found.st_mode):
            self._chain(path)
        return True

    def _chain(self, path: str) -> None:
        why = distrust(path)
        if why:
            raise _Doubtful(why)


def _leads(file: str, below: str, prefix: str = "") -> str:
    """Where a file of one line says that the rest is."""
    return os.path.normpath(os.path.join(below, _text(file).removeprefix(prefix).rstrip("\n")))


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(MOST_TEXT))
    except FileNotFoundError:
        return ""
