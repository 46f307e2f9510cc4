"""`masu exec`: the runtime's own exec, so that the command has the container's namespaces, rights and filters.

crun is shown the cgroup2 mount alone on hybrid layouts, as at launch; the cgroup is joined first.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from controller.errors import HostLacks
from controller.host.entering import UNIFIED_ROOT, WayIn, enter
from controller.host.places import Places
from controller.model.facts import CORE, Facts


def way_in(
    facts: Facts,
    places: Places,
    name: str,
    group: str,
    pid: int,
    options: Sequence[str],
    command: Sequence[str],
) -> WayIn:
    """How a command gets into a container. `options` are those that both runtimes' exec knows. Raises HostLacks."""
    runtime, core = facts.runtime, facts.hierarchy(CORE)
    if runtime is None:
        raise HostLacks("no OCI runtime runs here: install crun or runc, or run `masu doctor`")
    own = ["--cgroup-manager=disabled"] if runtime.name == "crun" else []
    hybrid = runtime.name == "crun" and core and core.mount != UNIFIED_ROOT
    return WayIn(
        argv=(runtime.path, "--root", places.runtime, *own, "exec", *options, name, *command),
        join=() if runtime.joins_itself else facts.join_files(group),
        init=pid,
        shown=core.mount if core and hybrid else "",
    )


def exec_inside(
    facts: Facts, places: Places, name: str, group: str, pid: int, command: tuple[str, ...]
) -> int:
    """Run it in the foreground with this process's own standard streams; returns its exit code."""
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    way = way_in(facts, places, name, group, pid, terminal, command)
    enter(way)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    code = subprocess.run(way.argv, check=False, preexec_fn=_default_signals).returncode
    return 128 - code if code < 0 else code


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
