"""`masu exec`: the runtime's own exec, so that the command has the container's namespaces, rights and filters.

The runtime is shown of cgroupfs what it was shown at launch; the cgroup is joined first.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from controller.errors import HostLacks, StepFailed
from controller.host import oci_cgroups, oci_state
from controller.host.cgroups.homes import Homes
from controller.host.entering import WayIn, enter
from controller.host.places import Places
from controller.model.launch import Init


def way_in(
    homes: Homes,
    places: Places,
    name: str,
    group: str,
    init: Init,
    options: Sequence[str],
    command: Sequence[str],
) -> WayIn:
    """How a command gets into a container. `options` are those that both runtimes' exec knows.

    Raises HostLacks; StepFailed when the runtime cannot be told of a container that was restored.
    runc joins the cgroups by itself: its many threads would count as processes of the container.
    """
    runtime = homes.facts.runtime
    if runtime is None:
        raise HostLacks("no OCI runtime runs here: install crun or runc, or run `masu doctor`")
    oci_state.describe(runtime, places, name, init, homes)
    own = ["--cgroup-manager=disabled"] if runtime.name == "crun" else []
    shown = oci_cgroups.shown(homes, runtime, group)
    return WayIn(
        argv=(runtime.path, "--root", places.runtime, *own, "exec", *options, name, *command),
        join=() if runtime.joins_itself else homes.join_files(group),
        init=init.pid,
        shown=tuple((each.source, each.target) for each in shown),
    )


def exec_inside(
    homes: Homes, places: Places, name: str, group: str, init: Init, command: tuple[str, ...]
) -> int:
    """Run it in the foreground with this process's own standard streams; returns its exit code."""
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    way = way_in(homes, places, name, group, init, terminal, command)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    try:
        code = subprocess.run(way.argv, check=False, preexec_fn=lambda: _become(way)).returncode
    except subprocess.SubprocessError as error:
        raise StepFailed(
            f"container {name} cannot be entered: it has just ended, or is out of memory"
        ) from error
    return 128 - code if code < 0 else code


def _become(way: WayIn) -> None:
    """In the child alone: masu itself must not be counted, nor killed, with the container's processes."""
    enter(way)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
