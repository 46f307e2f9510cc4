"""Side effects on the files of names that are generated for a container."""

from __future__ import annotations

from typing import ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class WriteNames(Step):
    """Write /etc/hosts, /etc/hostname or /etc/resolv.conf of the container, in place."""

    stage: ClassVar[Stage] = Stage.LINK
    effect: ClassVar[Effect] = Effect.LIVE

    file: str
    contents: str
    live: str

    @property
    def text(self) -> str:
        return f"write /etc/{self.file}: {self.live} → {self.contents.count(chr(10))} lines"

    def apply(self, host: Host) -> Wait | None:
        host.names.write(self.container, self.file, self.contents)
        return None


@dataclass(frozen=True, slots=True)
class ForgetNames(Step):
    """Remove the container's files of names."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove generated files of names"

    def apply(self, host: Host) -> Wait | None:
        host.names.remove(self.container)
        return None
