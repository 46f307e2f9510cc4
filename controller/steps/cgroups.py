"""Side effects on cgroupfs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.cgroups import in_budget
from controller.model.keyed import Cell
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.freezer import end

IN_USE_LOOK_MS = 100

CONTROL = "cgroup.subtree_control"
DIRECTION_STAGE = {"down": Stage.DECREASE, "same": Stage.CHANGE, "up": Stage.INCREASE}


@dataclass(frozen=True, slots=True)
class CreateCgroup(Step):
    """Make the container's group in every hierarchy that lacks it."""

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    missing: Mapping[str, str]
    """Mount → the budget that it is in there."""

    @property
    def text(self) -> str:
        return f"create cgroup {self.group}{_named(self.missing)} in {_count(self.missing)}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("cgroup", "incomplete", self.group)

    def apply(self, host: Host) -> Wait | None:
        host.cgroups.place(self.group, self.missing, 0)
        return None


@dataclass(frozen=True, slots=True)
class MoveCgroup(Step):
    """Bring the container into other budgets, or out of them, with all its processes; init comes last."""

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    budgets: Mapping[str, str]
    homes: tuple[str, ...]
    init: int

    @property
    def text(self) -> str:
        return f"move the cgroup{_named(self.budgets) or ' out of its groups'} ({_count(self.budgets)})"

    @property
    def change(self) -> tuple[str, str, str] | None:
        wanted = sorted({in_budget(self.group, each) for each in self.budgets.values()})
        return ("group", ", ".join(self.homes), ", ".join(wanted))

    def apply(self, host: Host) -> Wait | None:
        host.cgroups.place(self.group, self.budgets, self.init)
        return None


def _named(budgets: Mapping[str, str]) -> str:
    """Whose budgets those are, in words."""
    names = sorted(set(budgets.values()) - {""})
    return f" into group {', '.join(names)}" if names else ""


def _count(mounts: Collection[str]) -> str:
    return f"{len(mounts)} hierarch{'y' if len(mounts) == 1 else 'ies'}"


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
        hierarchy = host.facts.hierarchy(self.subsystem)
        homes = host.cgroups.homes(self.group).get(hierarchy.mount, ()) if hierarchy else ()
        for above in (each for home in homes or (self.group,) for each in _above(home)):
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


@dataclass(frozen=True, slots=True)
class RemoveBudget(Step):
    """Remove the group of a budget that nobody shares any more; whoever still runs in it is not harmed."""

    stage: ClassVar[Stage] = Stage.UNPLACE
    effect: ClassVar[Effect] = Effect.DELETE

    group: str

    @property
    def text(self) -> str:
        return f"remove cgroup {self.group}"

    def apply(self, host: Host) -> Wait | None:
        if host.cgroups.populated(self.group):
            message = "a container that is still in it has to leave first"
            return Wait("GroupInUse", message, host.clock.now_ms() + IN_USE_LOOK_MS)
        host.cgroups.remove(self.group, lambda: None)
        return None
