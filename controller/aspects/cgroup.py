"""Existence of the container's cgroup in every hierarchy, and that its init really is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.cgroups import CreateCgroup, MoveProcesses, RemoveCgroup


@dataclass(frozen=True, slots=True)
class Placement:
    """Mounts on which the group must exist."""

    mounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """Mounts on which the group exists, and where init is: cgroup mount → path."""

    present: frozenset[str]
    init: Mapping[str, str]


class Cgroup:
    name = "cgroup"
    section = ""
    keys: Mapping[str, Effect] = {"cgroup": Effect.LIVE, "cgroup.procs": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Placement | None:
        """Pure. Every container is placed in every hierarchy the host has."""
        del section
        return Placement(tuple(each.mount for each in facts.hierarchies))

    def birth(self, desired: Placement) -> Birth | None:
        """Pure. The keeper puts the process in place; the bundle need not know."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Placement | None) -> Placed:
        """Read-only."""
        del desired
        init = host.processes.groups(subject.pid) if subject.pid else {}
        stat = host.processes.stat(subject.pid) if subject.pid else None
        if stat is None or stat.ended:
            init = {}  # a process that is ending is moved to the root by the kernel
        return Placed(host.cgroups.present(subject.group), init)

    def diff(self, subject: Subject, desired: Placement, observed: Placed) -> list[Step]:
        """Pure."""
        steps: list[Step] = []
        missing = tuple(mount for mount in desired.mounts if mount not in observed.present)
        if missing:
            steps.append(CreateCgroup(subject.name, subject.group, missing))
        strayed = [
            path
            for mount, path in observed.init.items()
            if mount in desired.mounts and not _within(path, subject.group)
        ]
        if strayed:
            steps.append(MoveProcesses(subject.name, subject.group, (subject.pid,), strayed[0]))
        return steps

    def remove(self, subject: Subject, observed: Placed) -> list[Step]:
        """Pure."""
        return [RemoveCgroup(subject.name, subject.group)] if observed.present else []


def _within(path: str, group: str) -> bool:
    return path == group or path.startswith(group + "/")
