"""What this host can do, as plain values. Filled by `controller.host`, read by pure code; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from controller.frozen import dataclass

CORE = "core"
"""Pseudo-subsystem: the interface files every cgroup2 mount has (cgroup.freeze, cgroup.kill, PSI)."""

USED_SUBSYSTEMS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "freezer",
    "devices",
    "blkio",
    "io",
    "hugetlb",
)
"""Subsystems masu places containers in, where the host has them."""


@dataclass(frozen=True, slots=True, order=True)
class Hierarchy:
    """One mounted cgroup file system; `subsystems` are those usable through this mount."""

    mount: str
    version: Literal[1, 2]
    subsystems: tuple[str, ...]

    def path(self, group: str) -> str:
        """Of a group that is in no budget."""
        return self.mount + group


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime that runs here; `joins_itself`: it moves the container into its cgroups by itself."""

    name: Literal["crun", "runc"]
    path: str
    version: str
    joins_itself: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at the host. `swap_limits`: the memory subsystem can limit swap.

    `memory_total`, `swap_total` in bytes; `tasks_total`: so many processes and threads; 0 where that is not known.
    `pressure`: the kernel accounts stalls (PSI); `pressure_window_ms`: windows it takes are multiples of this.
    `huge_pages`: sizes in bytes.
    `named`: mounts of v1 hierarchies without a subsystem (name=systemd): masu puts nothing there, but runc does.
    """

    hierarchies: tuple[Hierarchy, ...]
    page_size: int
    cpus: frozenset[int]
    mems: frozenset[int]
    kernel: str
    machine: str
    boot_id: str
    swap_limits: bool
    memory_total: int
    swap_total: int
    tasks_total: int
    pressure: bool
    pressure_window_ms: int
    huge_pages: frozenset[int]
    named: tuple[str, ...] = ()
    runtime: Runtime | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def hierarchy(self, subsystem: str) -> Hierarchy | None:
        """The mount that serves `subsystem`, or None where the kernel or the layout lacks it."""
        for each in self.hierarchies:
            if subsystem in each.subsystems or (subsystem == CORE and each.version == 2):
                return each
        return None

    def version(self, subsystem: str) -> Literal[1, 2] | None:
        found = self.hierarchy(subsystem)
        return found.version if found else None

    @property
    def layout(self) -> Literal["v1", "v2", "hybrid", "none"]:
        versions = {each.version for each in self.hierarchies}
        if versions == {1, 2}:
            return "hybrid"
        return "v1" if versions == {1} else "v2" if versions == {2} else "none"
