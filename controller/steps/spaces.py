"""Side effects on disk space of a hard size."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.quantity import format_bytes
from controller.model.space import Mechanism, NewSpace, Space, SpaceChange
from controller.steps._base import Effect, Stage, Step, Wait

ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class _SpaceStep(Step):
    """Before a birth; what fails holds back no limit, but nobody is born without its space."""

    stage: ClassVar[Stage] = Stage.INCREASE
    effect: ClassVar[Effect] = Effect.LIVE
    scope: ClassVar[str] = "space"

    space: Space
    key: str

    @abstractmethod
    def apply(self, host: Host) -> Wait | None: ...


@dataclass(frozen=True, slots=True)
class MakeSpace(_SpaceStep):
    """An empty one."""

    new: NewSpace
    mechanism: Mechanism
    means: Effect

    @property
    def effect(self) -> Effect:  # type: ignore[override]  # another one's for each
        return self.means

    @property
    def text(self) -> str:
        return f"make a space of {format_bytes(self.new.size)} ({self.mechanism or 'no mechanism'})"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return f"{self.key}size", ABSENT, format_bytes(self.new.size)

    def apply(self, host: Host) -> Wait | None:
        host.spaces.make(self.space, self.new)
        return None


@dataclass(frozen=True, slots=True)
class MountSpace(_SpaceStep):
    """Where the host sees it; in containers that use it nothing changes."""

    live: str

    @property
    def text(self) -> str:
        return f"mount the space: {self.live} → mounted"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return f"{self.key}mount", self.live, "mounted"

    def apply(self, host: Host) -> Wait | None:
        host.spaces.change(self.space, SpaceChange(mounted=True))
        live = host.spaces.look(self.space)
        if not live or not live.mounted:
            raise NotReadBack(f"{self.space.text} was mounted, but something else is seen in its place")
        return None


@dataclass(frozen=True, slots=True)
class UnmountSpace(_SpaceStep):
    """Its data stays. `after`: whether all else has gone before."""

    after: bool

    @property
    def stage(self) -> Stage:  # type: ignore[override]
        return Stage.CLEAR if self.after else Stage.INCREASE

    @property
    def text(self) -> str:
        return "unmount the space; its data is kept" if self.after else "unmount the space, to grow it"

    def apply(self, host: Host) -> Wait | None:
        host.spaces.change(self.space, SpaceChange(mounted=False))
        return None


@dataclass(frozen=True, slots=True)
class GrowSpace(_SpaceStep):
    live: int
    size: int

    @property
    def text(self) -> str:
        return f"set the space's size: {format_bytes(self.live)} → {format_bytes(self.size)}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return f"{self.key}size", format_bytes(self.live), format_bytes(self.size)

    def apply(self, host: Host) -> Wait | None:
        host.spaces.change(self.space, SpaceChange(size=self.size))
        live = host.spaces.look(self.space)
        if not live or live.limit < self.size:
            raise NotReadBack(f"{self.space.text} was grown to {self.size} bytes, but reads back as {live}")
        return None


@dataclass(frozen=True, slots=True)
class SetSpaceRule(_SpaceStep):
    """What becomes of it when its file goes."""

    keep: bool

    @property
    def text(self) -> str:
        return f"note onDelete: {_rule(keep=self.keep)}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return f"{self.key}onDelete", _rule(keep=not self.keep), _rule(keep=self.keep)

    def apply(self, host: Host) -> Wait | None:
        host.spaces.change(self.space, SpaceChange(keep=self.keep))
        return None


@dataclass(frozen=True, slots=True)
class SetSpaceOwner(_SpaceStep):
    """Of its topmost directory; what is in there is its users' business."""

    live: tuple[int, int]
    owner: tuple[int, int]

    @property
    def text(self) -> str:
        return f"set the owner of the space: {_ids(self.live)} → {_ids(self.owner)}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return f"{self.key}owner", _ids(self.live), _ids(self.owner)

    def apply(self, host: Host) -> Wait | None:
        host.spaces.change(self.space, SpaceChange(owner=self.owner))
        return None


@dataclass(frozen=True, slots=True)
class RemoveSpace(_SpaceStep):
    """With all its data."""

    means: Effect

    @property
    def stage(self) -> Stage:  # type: ignore[override]
        return Stage.CLEAR if self.means is Effect.DELETE else Stage.INCREASE

    @property
    def effect(self) -> Effect:  # type: ignore[override]
        return self.means

    @property
    def text(self) -> str:
        return "remove the space, with its data"

    def apply(self, host: Host) -> Wait | None:
        host.spaces.remove(self.space)
        return None


def _rule(*, keep: bool) -> str:
    return "keep" if keep else "remove"


def _ids(pair: tuple[int, int]) -> str:
    return f"{pair[0]}:{pair[1]}"
