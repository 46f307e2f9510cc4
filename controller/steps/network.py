"""Side effects on a container's network namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.host.ports import Host
from controller.model.launch import Init
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class RaiseLoopback(Step):
    """Set the loopback link of the container's own network namespace up."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init

    @property
    def text(self) -> str:
        return "set loopback up"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("namespaces.loopback", "down", "up")

    def apply(self, host: Host) -> Wait | None:
        host.inside.raise_loopback(self.init)
        return None
