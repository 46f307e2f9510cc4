"""Existence of a cgroup in every hierarchy it is to be in, in the budgets it shares, and that its init is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.cgroups import BUDGET, SUBSYSTEMS, budget_of, in_budget
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.cgroups import CreateCgroup, MoveCgroup, MoveProcesses, RemoveBudget, RemoveCgroup


@dataclass(frozen=True, slots=True)
class Placement:
    """Mount on which the group must exist → the budget that it is in there, or "" for none."""

    budgets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Placed:
    """Mount → paths of the group, where it is whole: two of them in the middle of a move; and the one of init."""

    homes: Mapping[str, tuple[str, ...]]
    init: Mapping[str, str]


class Cgroup:
    name = "cgroup"
    section = "cgroup"
    keys: Mapping[str, Effect] = {"cgroup": Effect.LIVE, "cgroup.procs": Effect.LIVE, "group": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Placement | None:
        """Pure. `section`: {budgets: sort → group}; {counts: sorts}, for a budget itself. See `model.cgroups`.

        A container is placed in every hierarchy that the host has, a budget where it counts something.
        """
        counts = None if "counts" not in section else _subsystems(section["counts"])
        budgets = {
            subsystem: name
            for sort, name in section.get("budgets", {}).items()
            for subsystem in SUBSYSTEMS[sort]
        }
        return Placement(
            {
                each.mount: next((budgets[one] for one in each.subsystems if one in budgets), "")
                for each in facts.hierarchies
                if counts is None or counts.intersection(each.subsystems)
            }
        )

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
        return Placed(host.cgroups.homes(subject.group, init), init)

    def diff(self, subject: Subject, desired: Placement, observed: Placed) -> list[Step]:
        """Pure."""
        wanted = {mount: in_budget(subject.group, name) for mount, name in desired.budgets.items()}
        missing = {mount: desired.budgets[mount] for mount in wanted if mount not in observed.homes}
        moved = {
            mount: desired.budgets[mount]
            for mount, path in wanted.items()
            if observed.homes.get(mount, (path,)) != (path,)
            or _elsewhere(subject.group, observed, mount, desired)
        }
        strayed = [
            path
            for mount, path in observed.init.items()
            if mount in wanted and budget_of(subject.group, path) is None
        ]
        steps: list[Step] = []
        if missing:
            steps.append(CreateCgroup(subject.name, subject.group, missing))
        if moved:
            homes = tuple(sorted({path for mount in moved for path in observed.homes.get(mount, ())}))
            steps.append(MoveCgroup(subject.name, subject.group, moved, homes, subject.pid))
        if strayed:
            steps.append(MoveProcesses(subject.name, subject.group, (subject.pid,), strayed[0]))
        return steps

    def remove(self, subject: Subject, observed: Placed) -> list[Step]:
        """Pure."""
        if not observed.homes:
            return []
        is_budget = subject.group.rpartition("/")[2].startswith(BUDGET)
        return [(RemoveBudget if is_budget else RemoveCgroup)(subject.name, subject.group)]


def _subsystems(sorts: Any) -> frozenset[str]:
    return frozenset(subsystem for sort in sorts for subsystem in SUBSYSTEMS[sort])


def _elsewhere(group: str, observed: Placed, mount: str, desired: Placement) -> bool:
    """Init is still in another budget: somebody was killed in the middle of a move."""
    found = budget_of(group, observed.init.get(mount, ""))
    return found is not None and found != desired.budgets[mount]
