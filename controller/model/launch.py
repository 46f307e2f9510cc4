"""How a container is launched by the keeper, and what the keeper says of its end. Pure values.

The keeper may be older than the controller, so these are turned into plain JSON and only ever grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from controller.frozen import as_dict, dataclass
from controller.model.process import Extent


@dataclass(frozen=True, slots=True)
class BindMount:
    """Show `source` at `target`, with everything mounted below it."""

    source: str
    target: str
    op: str = "bind"


@dataclass(frozen=True, slots=True)
class IdmapMount:
    """Show `source` at `target` with its owners mapped: inside id 0 appears as the mapped host id."""

    source: str
    target: str
    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]
    op: str = "idmap"


@dataclass(frozen=True, slots=True)
class OverlayMount:
    """`lower` stays pristine, writes go to `upper`; `work` is on the same file system as `upper`."""

    lower: str
    upper: str
    work: str
    target: str
    op: str = "overlay"


@dataclass(frozen=True, slots=True)
class SysMount:
    """A sysfs at `target` as seen in the network namespace that is bound to the file `source`."""

    source: str
    target: str
    op: str = "sys"


NODES_MARK = "masu-nodes"
"""The name of a tmpfs with device nodes of masu's in it: by it they are known inside (proc_pid_mountinfo(5))."""


@dataclass(frozen=True, slots=True)
class NodeMade:
    """A device node by a file's `name`; user and group as the host counts them."""

    name: str
    kind: str
    major: int
    minor: int
    mode: int
    user: int
    group: int


@dataclass(frozen=True, slots=True)
class NodesMount:
    """A tmpfs at `target` with these device nodes, and nothing else."""

    target: str
    nodes: tuple[NodeMade, ...]
    source: str = NODES_MARK


MountOp = BindMount | IdmapMount | OverlayMount | SysMount


@dataclass(frozen=True, slots=True)
class LogLimits:
    """A log of `max_bytes` is set aside, and `files` of those are kept."""

    max_bytes: int = 10 * 1024 * 1024
    files: int = 3


@dataclass(frozen=True, slots=True)
class LaunchRecipe:
    """One call of the runtime: make a mount namespace and device nodes, join cgroups, mount, exec `argv` in `cwd`.

    `join`: cgroup.procs files that the process enters first, so that the container is born inside.
    `members`: a cgroup.procs file that lists the container's processes.
    `offsets`: clock → nanoseconds of a time namespace to be made; none: the host's time.
    `pid_file`: where the runtime writes init's pid before it exits with status 0.
    """

    container: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    join: tuple[str, ...]
    mounts: tuple[MountOp | Mapping[str, Any], ...]
    pid_file: str
    members: str
    timeout_ms: int
    log: LogLimits = field(default_factory=LogLimits)
    offsets: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[NodesMount, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return as_dict(self)


@dataclass(frozen=True, slots=True)
class Init:
    """A container's first process: its pid, and its start time in clock ticks since boot.

    The time tells it from another process that is given the same pid later.
    """

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process has ended: with an exit code, or by a signal."""

    code: int
    signal: int


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How init ended, as waited for by the keeper; code -1: nobody could know. `at` in ms since boot."""

    pid: int
    start_time: int
    boot_id: str
    code: int
    signal: int
    at: int
