"""Freezing and thawing: cgroup.freeze wherever a cgroup2 mount exists, v1's freezer.state elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import NotReadBack
from controller.host.ports import Host
from controller.model.facts import CORE, Facts
from controller.steps._base import Effect, Stage, Step, Wait

SETTLE_MS = 2_000
"""How long a freezer may take: a task in uninterruptible sleep freezes when it wakes."""


@dataclass(frozen=True, slots=True)
class Freezer:
    """The knob that freezes on this host, and its two words."""

    subsystem: str
    file: str
    frozen: str
    thawed: str


def freezer_of(facts: Facts) -> Freezer | None:
    """Pure. A task frozen by v2 can still be killed, one frozen by v1 cannot: v2 is preferred."""
    if facts.hierarchy(CORE):
        return Freezer(CORE, "cgroup.freeze", "1", "0")
    if facts.hierarchy("freezer"):
        return Freezer("freezer", "freezer.state", "FROZEN", "THAWED")
    return None


@dataclass(frozen=True, slots=True)
class SetFreezer(Step):
    """Freeze or thaw the container, and wait until the kernel says it is done."""

    group: str
    freezer: Freezer
    frozen: bool
    live: str

    @property
    def stage(self) -> Stage:
        return Stage.STATE

    @property
    def effect(self) -> Effect:
        return Effect.LIVE

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
    freezer = freezer_of(host.facts)
    if freezer and host.cgroups.read(group, freezer.subsystem, freezer.file) not in {None, freezer.thawed}:
        host.cgroups.write(group, freezer.subsystem, freezer.file, freezer.thawed)
