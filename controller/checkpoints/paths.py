"""What may be a name in a checkpoint: nothing that leads anywhere else. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from controller.errors import CheckpointDamaged
from controller.model.names import quote

if TYPE_CHECKING:
    from controller.checkpoints.manifest import Entry

LONGEST_NAME, LONGEST_PATH = 255, 4095
KINDS = frozenset({"file", "directory", "symlink", "device", "fifo", "socket", "link"})
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}-[0-9a-f]{8}")
_MODES = 0o7777
_LARGEST_ID = (1 << 32) - 2


def is_id(text: str) -> bool:
    """20261125-201523-042-1f9a3c07: when (UTC, milliseconds), and eight random digits."""
    return _ID.fullmatch(text) is not None


def is_name(name: str) -> bool:
    """Of one file: no slash, no NUL, neither `.` nor `..`."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name and len(name) <= LONGEST_NAME


def is_path(path: str) -> bool:
    """Names with slashes between them, relative."""
    return len(path) <= LONGEST_PATH and all(is_name(each) for each in path.split("/"))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "."


def check_tree(entries: Iterable[Entry]) -> None:
    """Raises CheckpointDamaged unless every name is plain, comes once, and is in a directory named before it."""
    kinds: dict[str, str] = {}
    for entry in entries:
        wrong = _wrong(entry, kinds)
        if wrong:
            raise CheckpointDamaged(f"{quote(entry.path)}: {wrong}")
        kinds[entry.path] = entry.kind


def _wrong(entry: Entry, kinds: dict[str, str]) -> str:
    if entry.path == ".":
        if kinds or entry.kind != "directory":
            return "the root comes first and is a directory"
        return wrong_values(entry)
    rules = (
        (entry.kind in KINDS, f"there is no kind {quote(str(entry.kind))}"),
        (bool(kinds), "the root of the tree is missing"),
        (is_path(entry.path), "not a plain relative path"),
        (entry.path not in kinds, "named twice"),
        (kinds.get(parent_of(entry.path)) == "directory", "not in a directory of the tree"),
        (entry.kind != "link" or kinds.get(entry.target) == "file", "a link to no file named before it"),
    )
    return next((wrong for holds, wrong in rules if not holds), "") or wrong_values(entry)


def wrong_values(entry: Entry) -> str:
    """What is wrong with anything but its name; empty: nothing."""
    if entry.mode & ~_MODES or not 0 <= entry.uid <= _LARGEST_ID or not 0 <= entry.gid <= _LARGEST_ID:
        return "an impossible mode or owner"
    if entry.kind == "symlink" and (not entry.target or "\0" in entry.target):
        return "a symlink to nowhere"
    if entry.kind == "device" and (entry.device is None or entry.device[0] not in {"c", "b"}):
        return "a device without a number"
    return ""
