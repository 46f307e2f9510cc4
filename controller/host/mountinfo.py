"""The lines of /proc/PID/mountinfo, whose text is a container's own choice: no name of it may look like a line.

The kernel escapes blanks, tabs, newlines and backslashes alone, so these alone separate; what Python also takes for
an end of line or a blank (U+0085, U+2028, form feeds …) is part of a name.
Source: proc_pid_mountinfo(5); fs/proc_namespace.c, show_mountinfo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from controller.frozen import dataclass

_MOUNT_ID: Final = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_FIRST_OPTIONAL: Final = 6
_PROGRAMS: Final = frozenset({"fuse", "fuseblk"})
_FAR: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "coda", "lustre", "orangefs", "beegfs", "gpfs"}
)


@dataclass(frozen=True, slots=True)
class Mount:
    """`options` of this mount alone; `settings` of its file system, for all its mounts. All without escapes."""

    target: str
    options: tuple[str, ...]
    kind: str
    source: str
    settings: tuple[str, ...]


def lines_of(text: str) -> Iterator[tuple[str, str]]:
    """(id of the mount, its line), in the order in which they were mounted."""
    return ((line.partition(" ")[0], line) for line in text.split("\n") if line)


def mount_under(fdinfo: str) -> str:
    """The id of the mount that an open file is on, from its /proc/PID/fdinfo; empty: it has been closed."""
    found = _MOUNT_ID.search(fdinfo)
    return found[1] if found else ""


def mount_of(line: str) -> Mount | None:
    """None: that is no such line."""
    fields = line.split(" ")
    try:
        kind, source, *settings = fields[fields.index("-", _FIRST_OPTIONAL) + 1 :]
    except ValueError:
        return None
    return Mount(
        unescaped(fields[4]),
        tuple(fields[5].split(",")),
        unescaped(kind),
        unescaped(source),
        tuple(map(unescaped, " ".join(settings).split(","))),
    )


def mounts(text: str) -> Iterator[Mount]:
    """Of a whole table."""
    found = (mount_of(line) for _, line in lines_of(text))
    return (each for each in found if each)


def is_programs(kind: str) -> bool:
    """Whether an ordinary process answers for a file system of this kind (FUSE), if it does."""
    return kind.partition(".")[0] in _PROGRAMS


def is_far(kind: str) -> bool:
    """Whether somebody answers for it who may not do so for hours, or never: nothing is to be asked of it."""
    return kind in _FAR or is_programs(kind)


def unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text
