"""Side effects on a container's mount namespace."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.launch import Init
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class _MountStep(Step):
    """One mount of the running container; `live` and `wanted` say in words what is there and what should be."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    entry: Mapping[str, Any]
    live: str
    wanted: str

    @property
    def target(self) -> str:
        target: str = self.entry["destination"]
        return target

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (f"mounts.{self.target}", self.live, self.wanted)

    @abstractmethod
    def apply(self, host: Host) -> Wait | None: ...


@dataclass(frozen=True, slots=True)
class MountInside(_MountStep):
    """Put a mount back that is not there."""

    @property
    def text(self) -> str:
        return f"mount {self.entry['source']} on {self.target}: {self.live} → {self.wanted}"

    def apply(self, host: Host) -> Wait | None:
        host.inside.mount(self.init, self.entry)
        return None


@dataclass(frozen=True, slots=True)
class UnmountInside(_MountStep):
    """Take away what covers the place of a mount; the right one may be below it."""

    @property
    def text(self) -> str:
        return f"unmount {self.target}: {self.live} → {self.wanted}"

    def apply(self, host: Host) -> Wait | None:
        host.inside.unmount(self.init, self.target)
        return None


@dataclass(frozen=True, slots=True)
class SetMountOptions(_MountStep):
    """The right mount with the wrong access: changed in place, what it holds and who uses it stay."""

    @property
    def text(self) -> str:
        return f"remount {self.target}: {self.live} → {self.wanted}"

    def apply(self, host: Host) -> Wait | None:
        host.inside.set_mount_options(self.init, self.entry)
        return None
