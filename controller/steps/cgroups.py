"""Side effects on cgroupfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.errors import NotReadBack
from controller.host.ports import Host
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.freezer import end

CONTROL = "cgroup.subtree_control"
DIRECTION_STAGE = {"down": Stage.DECREASE, "same": Stage.CHANGE, "up": Stage.INCREASE}


@dataclass(frozen=True, slots=True)
class CreateCgroup(Step):
    """Make the container's group in every hierarchy that lacks it."""

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"create cgroup {self.group} in {len(self.missing)} hierarchies"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("cgroup", "incomplete", self.group)

    def apply(self, host: Host) -> Wait | None:
        host.cgroups.create(self.group)
        return None


@dataclass(frozen=True, slots=True)
class HandDown(Step):
    """Switch a v2 subsystem on for the group, at every level above it.

    Only for one that somebody asks for: it costs all groups there a little (cgroup-v2.rst, "Enabling and
    Disabling").
    """

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    subsystem: str

    @property
    def text(self) -> str:
        return f"switch cgroup subsystem {self.subsystem} on for {self.group}"

    @property
    def scope(self) -> str:
        return self.subsystem

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (f"cgroup.{self.subsystem}", "absent", "on")

    def apply(self, host: Host) -> Wait | None:
        for above in _above(self.group):
            if not self._on(host, above):
                host.cgroups.write(above, self.subsystem, CONTROL, f"+{self.subsystem}")
                if not self._on(host, above):
                    raise NotReadBack(f"{above or '/'} {CONTROL}: {self.subsystem} is still off")
        return None

    def _on(self, host: Host, group: str) -> bool:
        return self.subsystem in (host.cgroups.read(group, self.subsystem, CONTROL) or "").split()


def _above(group: str) -> list[str]:
    """Groups above, the root, which is "", first."""
    parts = group.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@dataclass(frozen=True, slots=True)
class MoveProcesses(Step):
    """Bring the container's processes back into its own group."""

    stage: ClassVar[Stage] = Stage.CHANGE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    pids: tuple[int, ...]
    found: str

    @property
    def text(self) -> str:
        return f"move {len(self.pids)} processes from {self.found} to {self.group}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("cgroup.procs", self.found, self.group)

    def apply(self, host: Host) -> Wait | None:
        for pid in self.pids:
            host.cgroups.enter(self.group, pid)
        return None


@dataclass(frozen=True, slots=True)
class SetKnob(Step):
    """Write one cgroup file and read it back; `live` is None where the file was not there when looked at.

    `accepted` is the text that the kernel is expected to read back, rounding included.
    """

    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    key: str
    subsystem: str
    file: str
    value: str
    accepted: str
    live: str | None
    direction: str = "same"
    danger: str = ""

    @property
    def stage(self) -> Stage:
        return DIRECTION_STAGE[self.direction]

    @property
    def text(self) -> str:
        return f"set {self.key} ({self.file}): {self.live or 'absent'} → {self.accepted}"

    @property
    def scope(self) -> str:
        return f"{self.key} {self.file}"

    @property
    def risk(self) -> str:
        return self.danger

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (self.key, self.live or "absent", self.accepted)

    def apply(self, host: Host) -> Wait | None:
        host.cgroups.write(self.group, self.subsystem, self.file, self.value)
        live = host.cgroups.read(self.group, self.subsystem, self.file)
        if live is None or live.split() != self.accepted.split():
            raise NotReadBack(f"{self.group} {self.file}: wrote {self.value!r}, reads back {live!r}")
        return None


@dataclass(frozen=True, slots=True)
class RemoveCgroup(Step):
    """Remove the container's group from every hierarchy, and end whoever is still in it."""

    stage: ClassVar[Stage] = Stage.UNPLACE
    effect: ClassVar[Effect] = Effect.DELETE

    group: str

    @property
    def text(self) -> str:
        return f"remove cgroup {self.group}"

    def apply(self, host: Host) -> Wait | None:
        host.cgroups.remove(self.group, lambda: end(host, self.group, None))
        return None
