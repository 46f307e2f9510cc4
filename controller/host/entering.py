"""How a process becomes one that may call the runtime's `exec` for a container: its cgroups, its time namespace.

Imports little: `timed_exec` starts with it.
"""

from __future__ import annotations

import os

from controller.frozen import dataclass
from controller.host import syscalls


@dataclass(frozen=True, slots=True)
class WayIn:
    """`join`: files of cgroups to enter first. `init`: whose time namespace. `shown`: (source, target) of what the
    runtime has to see of cgroupfs."""

    argv: tuple[str, ...]
    join: tuple[str, ...]
    init: int
    shown: tuple[tuple[str, str], ...]


def enter(way: WayIn) -> None:
    """This very process: what it starts is limited and counted with the rest. Raises OSError."""
    for path in way.join:
        with open(path, "w") as knob:
            knob.write("0")
    _enter_time(way.init)
    if way.shown:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_SLAVE)
    for source, target in way.shown:
        syscalls.mount(source, target, syscalls.MS_BIND)


def _enter_time(pid: int) -> None:
    """The time namespace is not in the bundle config, so the runtime does not know of it."""
    theirs = f"/proc/{pid}/ns/time"
    if os.path.exists(theirs) and os.stat(theirs).st_ino != os.stat("/proc/self/ns/time").st_ino:
        descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(descriptor, syscalls.CLONE_NEWTIME)
        os.close(descriptor)
