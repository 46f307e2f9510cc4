"""Side effects on the instance's own table of the packet filter."""

from __future__ import annotations

from typing import ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.firewall import Firewall
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class ApplyRuleset(Step):
    """Make the table what is asked for, in one transaction, and read it back."""

    stage: ClassVar[Stage] = Stage.LINK
    effect: ClassVar[Effect] = Effect.LIVE

    firewall: Firewall
    live: str

    @property
    def wanted(self) -> str:
        parts = {
            "bridge": self.firewall.bridges,
            "published port": self.firewall.publications,
            "rule": self.firewall.allowances,
        }
        return ", ".join(f"{len(each)} {word}{'s' * (len(each) != 1)}" for word, each in parts.items())

    @property
    def text(self) -> str:
        return f"apply packet filter: {self.live} → {self.wanted}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("firewall", self.live, self.wanted)

    def apply(self, host: Host) -> Wait | None:
        host.firewall.apply(self.firewall)
        return None


@dataclass(frozen=True, slots=True)
class RemoveRuleset(Step):
    """Delete the table."""

    stage: ClassVar[Stage] = Stage.UNPLACE
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove packet filter"

    def apply(self, host: Host) -> Wait | None:
        host.firewall.remove()
        return None
