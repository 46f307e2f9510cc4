"""Freezing, thawing and ending: cgroup.freeze wherever a cgroup2 mount exists, v1's freezer.state elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import CORE, Facts
from controller.model.record import Record
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.throttle import unthrottle

SETTLE_MS = 2_000
"""How long a freezer may take: a task in uninterruptible sleep freezes when it wakes."""


@dataclass(frozen=True, slots=True)
class Freezer:
    """The knob that freezes on this host, and its two words."""

    subsystem: str
    file: str
    frozen: str
    thawed: str


V2 = Freezer(CORE, "cgroup.freeze", "1", "0")
V1 = Freezer("freezer", "freezer.state", "FROZEN", "THAWED")
"""A task that it has frozen cannot even be killed."""


def freezers_of(facts: Facts) -> tuple[Freezer, ...]:
    """Pure. What can freeze a container here; masu freezes with the first, and thaws all of them."""
    return tuple(each for each in (V2, V1) if facts.hierarchy(each.subsystem))


def frozen_by(host: Host, group: str) -> tuple[Freezer, ...]:
    """Read-only. Whoever holds the group frozen, or is about to."""
    return tuple(each for each, word in freezing(host, group).items() if word not in {None, each.thawed})


def freezing(host: Host, group: str) -> Mapping[Freezer, str | None]:
    """Read-only. What each freezer of this host says of the group."""
    return {each: host.cgroups.read(group, each.subsystem, each.file) for each in freezers_of(host.facts)}


@dataclass(frozen=True, slots=True)
class SetFreezer(Step):
    """Freeze or thaw the container, and wait until the kernel says it is done."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    freezer: Freezer
    frozen: bool
    live: str

    @property
    def text(self) -> str:
        return "freeze" if self.frozen else "thaw"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("state", self.live, self._wanted)

    @property
    def _wanted(self) -> str:
        return self.freezer.frozen if self.frozen else self.freezer.thawed

    def apply(self, host: Host) -> Wait | None:
        deadline = host.clock.now_ms() + SETTLE_MS
        _release(host, self.group, (each for each in frozen_by(host, self.group) if each != self.freezer))
        host.cgroups.write(self.group, self.freezer.subsystem, self.freezer.file, self._wanted)
        while not self._settled(host):
            if host.clock.now_ms() > deadline:
                raise NotReadBack(f"{self.group}: {self.text} not done after {SETTLE_MS} ms")
            host.clock.sleep_ms(1)
        return None

    def _settled(self, host: Host) -> bool:
        if self.freezer.subsystem != CORE:
            return host.cgroups.read(self.group, self.freezer.subsystem, self.freezer.file) == self._wanted
        events = (host.cgroups.read(self.group, CORE, "cgroup.events") or "").split()
        return f"frozen {int(self.frozen)}" in " ".join(events)


def thaw(host: Host, group: str) -> None:
    """A frozen process cannot obey a signal."""
    _release(host, group, frozen_by(host, group))


def end(host: Host, group: str, init: Record | None) -> None:
    """SIGKILL everything in the group, and its init wherever it may have been moved to.

    What v2 has frozen does not come to life before it dies. What is left to write is not held back any more.
    """
    unthrottle(host, group)
    _release(host, group, (each for each in frozen_by(host, group) if each == V1))
    host.processes.kill_group(group)
    if init and init.pid and init.boot_id == host.facts.boot_id:
        host.processes.kill(init.pid, init.start_time)
    thaw(host, group)


def _release(host: Host, group: str, freezers: Iterable[Freezer]) -> None:
    for each in freezers:
        host.cgroups.write(group, each.subsystem, each.file, each.thawed)
