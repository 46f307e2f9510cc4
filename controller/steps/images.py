"""Side effects on images: fetched by threads of their own, waited for by whoever is born from one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.image import Amount, Source, short
from controller.steps._base import Effect, Stage, Step, Wait

PULLING = "Pulling"
LOOK_MS = 1000


@dataclass(frozen=True, slots=True)
class AwaitImage(Step):
    """Its image is not here yet: nothing is touched, and nobody is born. `digest`: empty where it is not known."""

    stage: ClassVar[Stage] = Stage.BIRTH
    writes: ClassVar[bool] = False

    reference: str
    digest: str
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return f"pull {self.reference}" + (f" ({short(self.digest)})" if self.digest else "")

    def apply(self, host: Host) -> Wait | None:
        return Wait(PULLING, f"{self.reference} is not here yet", host.clock.now_ms() + LOOK_MS)


@dataclass(frozen=True, slots=True)
class FetchImage(Step):
    """Have the image on this host, whole and on disk. `told` hears how far it has come."""

    stage: ClassVar[Stage] = Stage.BIRTH
    effect: ClassVar[Effect] = Effect.NONE

    source: Source
    digest: str
    told: Callable[[Amount], None] = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        return f"pull {self.source.reference} ({short(self.digest)})"

    def apply(self, host: Host) -> Wait | None:
        host.images.fetch(self.source, self.digest, self.told)
        return None


@dataclass(frozen=True, slots=True)
class RemoveImage(Step):
    """Nobody refers to it any more."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.NONE

    digest: str

    @property
    def text(self) -> str:
        return f"remove image {short(self.digest)}"

    def apply(self, host: Host) -> Wait | None:
        host.images.remove(self.digest)
        return None
