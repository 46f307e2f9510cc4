"""`masu exec`: the runtime's own exec, so that the command has the container's namespaces, rights and filters.

The runtime is shown of cgroupfs what it was shown at launch; the cgroup is joined first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from controller.errors import HostLacks
from controller.host import oci_cgroups, oci_state, syscalls
from controller.host.cgroups.homes import Homes
from controller.host.places import Places
from controller.host.proc_stat import stat_of
from controller.model.launch import Init


def exec_inside(
    homes: Homes, places: Places, name: str, group: str, init: Init, command: tuple[str, ...]
) -> int:
    """Run it in the foreground with this process's own standard streams; returns its exit code."""
    runtime = homes.facts.runtime
    if runtime is None:
        raise HostLacks("no OCI runtime runs here: install crun or runc, or run `masu doctor`")
    own = ["--cgroup-manager=disabled"] if runtime.name == "crun" else []
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    argv = [runtime.path, "--root", places.runtime, *own, "exec", *terminal, name, *command]
    if not runtime.joins_itself:
        _become_member(homes, group)
    _enter_time(init.pid)
    oci_state.describe(runtime, places, name, _as_seen(init), homes)
    shown = oci_cgroups.shown(homes, runtime, group)
    if shown:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_SLAVE)
    for each in shown:
        syscalls.mount(each.source, each.target, syscalls.MS_BIND)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    code = subprocess.run(argv, check=False, preexec_fn=_default_signals).returncode
    return 128 - code if code < 0 else code


def _become_member(homes: Homes, group: str) -> None:
    """This very process enters the container's cgroups: what it starts is limited and counted with the rest.

    Not for runc, whose many threads would count as processes of the container.
    """
    for path in homes.join_files(group):
        with open(path, "w") as knob:
            knob.write("0")


def _enter_time(pid: int) -> None:
    """The time namespace is not in the bundle config, so the runtime does not know of it."""
    theirs = f"/proc/{pid}/ns/time"
    if os.path.exists(theirs) and os.stat(theirs).st_ino != os.stat("/proc/self/ns/time").st_ino:
        descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(descriptor, syscalls.CLONE_NEWTIME)
        os.close(descriptor)


def _as_seen(init: Init) -> Init:
    """Start times count from the boot of whoever asks: time_namespaces(7)."""
    stat = stat_of(init.pid)
    return Init(init.pid, stat.start_time) if stat else init


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
