"""Letting what a container leaves behind through, when it is about to be killed."""

from __future__ import annotations

import contextlib
from typing import Final

from controller.errors import StepFailed
from controller.host.ports import Host

UNLIMITED: Final = (
    ("io", "io.max", "rbps=max wbps=max riops=max wiops=max"),
    *(
        ("blkio", f"blkio.throttle.{way}_{what}_device", "0")
        for way in ("read", "write")
        for what in ("bps", "iops")
    ),
)
"""(subsystem, file, what takes the limits of a line away)."""


def unthrottle(host: Host, group: str) -> None:
    """Lift every limit of disk bandwidth from the group.

    The last process of a container takes its root file system down, and with that frees what was deleted and syncs
    the file system of the layer, others' files included (fs/overlayfs/super.c, ovl_sync_fs). Held to five
    operations a second, that took 35 to 50 s. Nobody's program runs any more by then. Whether it works or not,
    the container is killed.
    """
    for subsystem, file, none in UNLIMITED:
        for line in (host.cgroups.read(group, subsystem, file) or "").splitlines():
            with contextlib.suppress(StepFailed):
                host.cgroups.write(group, subsystem, file, f"{line.partition(' ')[0]} {none}")
