"""Observe one container and say which steps would make it what is desired. Looks, never touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controller.aspects import ASPECTS_OF
from controller.aspects._base import Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.cgroups import BUDGET, key_of_directory
from controller.model.marks import network_of_mark
from controller.model.resource import CONTAINER, FIREWALL, NETWORK, VOLUME, key_of, kind_of
from controller.model.space import ROOTFS, VOLUME_SORT, Space
from controller.model.status import HOST_LACKS, Condition, Drift
from controller.reconcile import look
from controller.reconcile.desired import Desired
from controller.steps._base import Effect, Step
from controller.steps.living import live_pid
from controller.steps.runtime import FOR_PEOPLE, Await


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look at one container, or at another key, came to: ordered steps; empty means converged.

    `drift`: differences in owned keys of a container that runs, for people to read. `broken`: what the
    kernel shows differently although no step can mend it. `remarks`: what else is to be said of what was seen.
    """

    container: str
    subject: Subject
    steps: tuple[Step, ...]
    drift: tuple[Drift, ...] = ()
    broken: tuple[Drift, ...] = ()
    remarks: tuple[Condition, ...] = ()

    @property
    def lacks(self) -> tuple[Condition, ...]:
        """What the host turned out not to be able to do, when looked at."""
        return tuple(each for each in self.remarks if each.type == HOST_LACKS)

    @property
    def effect(self) -> Effect:
        return max(
            (step.effect for step in self.steps), key=lambda effect: effect.weight, default=Effect.NONE
        )

    @property
    def lives(self) -> bool:
        """Whether a difference is drift, and not something that has yet to be made."""
        return bool(self.subject.pid) or kind_of(self.container) != CONTAINER

    @property
    def hindrances(self) -> Iterator[str]:
        """What nothing but somebody's doing can end, in words."""
        for step in self.steps:
            if isinstance(step, Await) and step.reason in FOR_PEOPLE:
                yield f"{step.reason}: {step.message}"
        for each in self.broken:
            yield f"{each.reason}: {each.key}: desired {each.desired}, live {each.live}"

    @property
    def changes(self) -> bool:
        """Whether anything would be done: waiting is not doing."""
        return any(step.kind != "Await" for step in self.steps)


def subject_of(name: str, group: str, host: Host) -> Subject:
    """Read-only."""
    found = host.records.read(name) if kind_of(name) == CONTAINER else None
    record = found.in_boot(host.facts.boot_id) if found else None
    return Subject(name, group, live_pid(host, record), record, host.clock.now_ms())


def plan(desired: Desired, group: str, host: Host) -> Plan:
    """Read-only. Observe every owned aspect, diff, and put the steps in order."""
    subject, host = subject_of(desired.name, group, host), look.at(host)
    steps: list[Step] = []
    drift: list[Drift] = []
    broken: list[Drift] = []
    remarks: list[Condition] = []
    for aspect in ASPECTS_OF[desired.kind]:
        part = desired.parts.get(aspect.name)
        if part is None:
            continue
        observed = aspect.observe(subject, host, part)
        found = list(aspect.diff(subject, part, observed))
        if found:
            steps.extend(found)
            if subject.pid or desired.kind != CONTAINER:
                drift.extend(_drift(aspect.name, found))
        broken.extend(_verify(aspect, part, observed))
        remarks.extend(_remarks(aspect, part, observed))
    return Plan(desired.name, subject, order(steps), tuple(drift), tuple(broken), tuple(remarks))


def removal(name: str, group: str, host: Host) -> Plan:
    """Read-only. What takes every trace of a container, or of what has another key, away."""
    subject, host = subject_of(name, group, host), look.at(host)
    steps: list[Step] = []
    for aspect in ASPECTS_OF[kind_of(name)]:
        steps.extend(aspect.remove(subject, aspect.observe(subject, host, None)))
    return Plan(name, subject, order(steps))


def order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Pure. By stage, decreases before increases; inside a stage as the aspects gave them."""
    return tuple(sorted(steps, key=lambda step: step.stage))


def _drift(aspect: str, steps: Iterable[Step]) -> list[Drift]:
    changes = ((step.change, step) for step in steps)
    return [Drift(aspect, change[0], change[2], change[1]) for change, _ in changes if change]


def _verify(aspect: Any, part: Any, observed: Any) -> list[Drift]:
    verify = getattr(aspect, "verify", None)
    return list(verify(part, observed)) if verify else []


def _remarks(aspect: Any, part: Any, observed: Any) -> list[Condition]:
    remarks = getattr(aspect, "remarks", None)
    return list(remarks(part, observed)) if remarks else []


def existing(root: str, host: Host) -> frozenset[str]:
    """Read-only. Names of all containers of this instance of which anything is left on the host."""
    placed, _ = _placed(root, host)
    return placed | _traced(host)


def _placed(root: str, host: Host) -> tuple[frozenset[str], frozenset[str]]:
    """Read-only. Names of containers that have a cgroup, in a budget or not; keys of groups that have one."""
    directly = host.cgroups.children(root)
    budgets = [each for each in directly if each.startswith(BUDGET)]
    inside = (host.cgroups.children(f"{root}/{each}") for each in budgets)
    return directly.difference(budgets).union(*inside), frozenset(map(key_of_directory, budgets))


def _traced(host: Host) -> frozenset[str]:
    """Read-only. Names of all containers that have left anything but a cgroup."""
    return recorded(host) | host.namespaces.names() | host.names.names()


def recorded(host: Host) -> frozenset[str]:
    """Read-only. Names of all containers that masu itself has made: anybody can make a cgroup."""
    return host.records.names() | host.layers.names() | host.spaces.names(ROOTFS)


def networks(host: Host) -> frozenset[str]:
    """Read-only. Keys of the networks of this instance that have left a link on the host."""
    found = (network_of_mark(host.instance, each.alias) for each in host.links.links("") or ())
    return frozenset(key_of(NETWORK, name) for name in found if name)


def volumes(host: Host) -> frozenset[str]:
    """Read-only. Keys of the volumes of which something goes with their files: not of those that are put by."""
    found = {name: host.spaces.look(Space(VOLUME_SORT, name)) for name in host.spaces.names(VOLUME_SORT)}
    return frozenset(
        key_of(VOLUME, name) for name, each in found.items() if each and (each.holds_mount or not each.put_by)
    )


def present(root: str, host: Host) -> frozenset[str]:
    """Read-only. Keys of everything of which anything is left."""
    firewall = {key_of(FIREWALL, host.instance)} if host.firewall.present() else set()
    placed, groups = _placed(root, host)
    return placed | groups | _traced(host) | networks(host) | volumes(host) | firewall
