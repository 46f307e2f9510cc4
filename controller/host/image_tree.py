"""What was unpacked of an image: looked at without following a link, before anything is mounted from it.

umoci resolves every name inside the tree, so `..` and links lead nowhere else. It makes device nodes as root, and
what it does not make today it may make in another version: nothing of that is taken on trust.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from controller.errors import ImageRefused
from controller.host.syscalls import open_below
from controller.model.names import quote

MOST_USERS: Final = 1 << 20
"""Bytes of an /etc/passwd or /etc/group."""
_FOREIGN: Final = ("trusted.", "user.overlay.")
"""Extended attributes that overlayfs takes for its own (Documentation/filesystems/overlayfs.rst)."""


def tidy(root: str) -> int:
    """Take out device nodes and what overlayfs would take for its own. → how many nodes.

    Raises ImageRefused for hard links to outside and for what is on another file system, OSError.
    """
    top = os.lstat(root)
    if not stat.S_ISDIR(top.st_mode):
        raise ImageRefused("its root is not a directory")
    links: dict[int, tuple[int, int, str]] = {}
    nodes, waiting = 0, [root]
    _strip(root)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for each in entries:
                seen = each.stat(follow_symlinks=False)
                where = each.path.removeprefix(root)
                if seen.st_dev != top.st_dev:
                    raise ImageRefused(f"{quote(where)} is on another file system")
                if stat.S_ISBLK(seen.st_mode) or stat.S_ISCHR(seen.st_mode):
                    os.unlink(each.path)
                    nodes += 1
                    continue
                _strip(each.path)
                if stat.S_ISDIR(seen.st_mode):
                    waiting.append(each.path)
                elif seen.st_nlink > 1:
                    found, _, _ = links.get(seen.st_ino, (0, 0, ""))
                    links[seen.st_ino] = (found + 1, seen.st_nlink, where)
    for found, known, where in links.values():
        if found != known:
            raise ImageRefused(f"{quote(where)} is a hard link to something outside of it")
    return nodes


def text_in(root: str, path: str) -> str:
    """A small text file as a process with that root would see it; empty where there is none."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_below(top, path)
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return ""
            with open(f"/proc/self/fd/{found}", "rb") as file:
                return file.read(MOST_USERS).decode(errors="replace")
        finally:
            os.close(found)
    except OSError:
        return ""
    finally:
        os.close(top)


def _strip(path: str) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(_FOREIGN):
            os.removexattr(path, name, follow_symlinks=False)
