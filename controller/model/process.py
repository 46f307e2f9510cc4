"""What /proc says of one process, and how its end is told, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.frozen import dataclass

TIMED_OUT: Final = 124
CANNOT_RUN: Final = 127
"""Exit codes of who did not end in time, or did not even begin: as timeout(1) and a shell tell it."""

Extent = tuple[int, int, int]
"""(first id inside, first id outside, how many), as in /proc/PID/uid_map."""


def parse_extents(text: str) -> tuple[Extent, ...]:
    """Pure. From the text of uid_map or gid_map."""
    rows = (line.split() for line in text.splitlines())
    return tuple((int(inside), int(outside), int(size)) for inside, outside, size in rows)


def id_outside(extents: Iterable[Extent], number: int) -> int | None:
    """Pure. The host's id for one inside; None: there is no such id inside."""
    return next(
        (outside + number - inside for inside, outside, size in extents if inside <= number < inside + size),
        None,
    )


def id_inside(extents: Iterable[Extent], number: int) -> int | None:
    """Pure. The other way round."""
    return id_outside(((outside, inside, size) for inside, outside, size in extents), number)


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """`start_time` in clock ticks since boot, field 22 of /proc/PID/stat; `state` is field 3.

    `exiting`: the kernel's PF_EXITING flag of the main thread; `threads` that are left, field 20.
    """

    pid: int
    state: str
    parent: int
    start_time: int
    exiting: bool = False
    threads: int = 1

    @property
    def ended(self) -> bool:
        """A zombie has ended, although its pid is not free yet; not so one whose other threads go on."""
        return (self.exiting or self.state in "ZX") and self.threads <= 1


@dataclass(frozen=True, slots=True)
class IdMap:
    """/proc/PID/uid_map, gid_map and timens_offsets (clock → nanoseconds)."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]
    offsets: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """A leased range of host user and group ids."""

    first: int
    size: int


@dataclass(frozen=True, slots=True)
class MountSeen:
    """The mount that a path inside leads to: its file system, and its own options (not the file system's).

    Without a `kind`: the path itself is not there. `shows`: whether it is the host's file or directory that was
    asked about; None: that cannot be told.
    """

    kind: str
    options: frozenset[str]
    shows: bool | None


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What a container left on disk: whether the runtime `remembered` the name, whether anything at all is
    left (`traces`: bundle, log, exit record), a live init in the right cgroup that the runtime started and
    whose log pipes are known, and whether the runtime is still being waited for (`launching`)."""

    remembered: bool
    traces: bool
    pid: int
    launching: bool = False
