"""Disks as limits of I/O see them. Pure values."""

from __future__ import annotations

from controller.frozen import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """A whole block device. `number`: as in "254:0"; `scheduler`: the one in use, "" where there is none to choose.

    `bottom`: there is no other device below it.
    """

    number: str
    name: str
    scheduler: str = ""
    bottom: bool = True


@dataclass(frozen=True, slots=True)
class Backing:
    """What is behind a path: every whole device on the way down, the top ones first; or why there is none.

    `writeback`: what is written through the page cache is charged to whoever wrote it, where cgroups can do that.
    """

    disks: tuple[Disk, ...] = ()
    lacks: str = ""
    writeback: bool = False
