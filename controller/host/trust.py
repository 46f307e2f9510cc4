"""Whether what is at a path can only have been written by root: whoever may change it is as good as root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

OTHERS = stat.S_IWGRP | stat.S_IWOTH
AS_GOOD_AS_ROOT = (
    "whoever writes specs is as good as root: give it to root alone, or say --allow-unsafe-source"
)


def distrust(path: str) -> str:
    """Read-only. Why somebody else than root may change or replace it, in words; "": nobody may. Raises OSError.

    Both the path as it is written and the one that its symbolic links lead to are looked at, up to the root.
    """
    for each in dict.fromkeys(_chain(path)):
        found = os.lstat(each)
        why = doubtful(found, is_above=each not in {os.path.abspath(path), os.path.realpath(path)})
        if why:
            return f"{each} {why}"
    return ""


def doubtful(found: os.stat_result, *, is_above: bool = False) -> str:
    """Pure. `is_above`: in a directory with the sticky bit, such as /tmp, nobody renames what is root's."""
    if found.st_uid != 0:
        return f"belongs to user {found.st_uid}, not to root"
    if stat.S_ISLNK(found.st_mode) or (is_above and found.st_mode & stat.S_ISVTX):
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return f"may be written by others than root (mode {mode:04o})" if mode & OTHERS else ""


def _chain(path: str) -> Iterator[str]:
    for each in (os.path.abspath(path), os.path.realpath(path)):
        while True:
            yield each
            above = os.path.dirname(each)
            if above == each:
                break
            each = above  # noqa: PLW2901
