"""Side effects on a container's mount namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.host.ports import Host
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class MountInside(Step):
    """Put one mount back into the running container."""

    pid: int
    target: str
    entry: Mapping[str, Any]
    live: str

    @property
    def stage(self) -> Stage:
        return Stage.INSIDE

    @property
    def effect(self) -> Effect:
        return Effect.LIVE

    @property
    def text(self) -> str:
        return f"mount {self.entry['source']} on {self.target}: {self.live} → {self._wanted}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (f"mounts.{self.target}", self.live, self._wanted)

    @property
    def _wanted(self) -> str:
        return f"{self.entry['type']} {'ro' if 'ro' in self.entry['options'] else 'rw'}"

    def apply(self, host: Host) -> Wait | None:
        host.inside.mount(self.pid, self.entry)
        return None
