"""Side effects on cgroupfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.errors import NotReadBack
from controller.host.ports import Host
from controller.model.keyed import Cell
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.freezer import end

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
    """Write one cgroup file, or one cell of it, and read it back; `live` is None where the file was not there.

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
    cell: Cell | None = None

    @property
    def stage(self) -> Stage:
        return DIRECTION_STAGE[self.direction]

    @property
    def text(self) -> str:
        return f"set {self.key} ({self._place}): {self.live or 'absent'} → {self.accepted}"

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
        text = self.cell.line(self.value) if self.cell else self.value
        host.cgroups.write(self.group, self.subsystem, self.file, text)
        read = host.cgroups.read(self.group, self.subsystem, self.file)
        live = self.cell.find(read) if self.cell and read is not None else read
        if live is None or live.split() != self.accepted.split():
            raise NotReadBack(f"{self.group} {self.file}: wrote {text!r}, reads back {read!r}")
        return None

    @property
    def _place(self) -> str:
        return f"{self.file} {self.cell.entry}" if self.cell else self.file


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
