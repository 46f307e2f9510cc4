"""What cgroup v2 needs that v1 does not."""

from __future__ import annotations

import contextlib
import os

from controller.host.text import read_text

HANDED_DOWN = frozenset({"cpu", "cpuset", "memory", "pids", "io"})
"""What a limit of masu needs; what nobody asks for is not switched on for the whole host."""


def prepare(mount: str, group: str, subsystems: tuple[str, ...]) -> None:
    """Make a group on a v2 mount; every level above it hands its subsystems down.

    Documentation/admin-guide/cgroup-v2.rst, "Enabling and Disabling": a group has the files of a subsystem
    only when its parent's cgroup.subtree_control names it.
    """
    path = mount
    for part in group.strip("/").split("/"):
        _hand_down(path, subsystems)
        path = f"{path}/{part}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)


def is_complete(path: str, subsystems: tuple[str, ...]) -> bool:
    """Whether a group that is there has all its files: whoever empties a level above takes them away."""
    needed = HANDED_DOWN.intersection(subsystems)
    return not needed or needed <= set((read_text(f"{path}/cgroup.controllers") or "").split())


def _hand_down(path: str, subsystems: tuple[str, ...]) -> None:
    enabled = (read_text(f"{path}/cgroup.subtree_control") or "").split()
    offered = (read_text(f"{path}/cgroup.controllers") or "").split()
    wanted = [
        f"+{each}" for each in subsystems if each in HANDED_DOWN and each in offered and each not in enabled
    ]
    if wanted:
        with open(f"{path}/cgroup.subtree_control", "w") as control:
            control.write(" ".join(wanted))
