"""What a step is: one frozen value that describes one side effect. A step never decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum, StrEnum

from controller.frozen import dataclass
from controller.host.ports import Host


class Stage(IntEnum):
    """The order in which the steps of one plan are applied; decreases go before increases."""

    STOP = 0
    PLACE = 10
    DECREASE = 20
    CHANGE = 25
    INCREASE = 30
    LINK = 35
    BIRTH = 40
    INSIDE = 50
    STATE = 60
    CLEAR = 70
    UNPLACE = 80


class Effect(StrEnum):
    """What a step means for whoever uses the container, weakest first."""

    NONE = "none"
    LIVE = "live"
    RESTART = "restart"
    RECREATE = "recreate"
    CREATE = "create"
    DELETE = "delete"

    @property
    def weight(self) -> int:
        return list(Effect).index(self)


@dataclass(frozen=True, slots=True)
class Wait:
    """A step's word that what follows must wait: `until` in milliseconds since boot."""

    reason: str
    message: str
    until: int


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One side effect on one container.

    `text` is what a plan prints; `risk` is empty, or says why a guard must refuse.
    """

    container: str

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def stage(self) -> Stage: ...

    @property
    @abstractmethod
    def effect(self) -> Effect: ...

    @property
    @abstractmethod
    def text(self) -> str: ...

    @property
    def scope(self) -> str:
        """Before a birth, what depends on it: the other steps of the same scope; "": all that follow."""
        return ""

    @property
    def risk(self) -> str:
        return ""

    @property
    def writes(self) -> bool:
        """Whether to apply it may change anything; one that only waits does not."""
        return True

    @property
    def change(self) -> tuple[str, str, str] | None:
        """(key, live, desired) where the step repairs or changes an owned key."""
        return None

    @abstractmethod
    def apply(self, host: Host) -> Wait | None:
        """Do it; safe to do twice. Raises StepFailed and its kin."""
