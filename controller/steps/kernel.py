"""Side effects on per-namespace kernel settings: host name and sysctls."""

from __future__ import annotations

from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.launch import Init
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class SetHostname(Step):
    """Set the host name in the container's UTS namespace and read it back."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    hostname: str
    live: str

    @property
    def text(self) -> str:
        return f"set hostname: {self.live} → {self.hostname}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("hostname", self.live, self.hostname)

    def apply(self, host: Host) -> Wait | None:
        host.inside.set_hostname(self.init, self.hostname)
        live = host.inside.hostname(self.init.pid)
        if live != self.hostname:
            raise NotReadBack(
                f"hostname of pid {self.init.pid}: wrote {self.hostname!r}, reads back {live!r}"
            )
        return None


@dataclass(frozen=True, slots=True)
class SetSysctl(Step):
    """Write one namespaced sysctl as seen from inside the container, and read it back."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    key: str
    value: str
    live: str | None

    @property
    def text(self) -> str:
        return f"set sysctl {self.key}: {self.live} → {self.value}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (f"sysctls.{self.key}", self.live or "absent", self.value)

    def apply(self, host: Host) -> Wait | None:
        host.inside.set_sysctl(self.init, self.key, self.value)
        live = host.inside.sysctl(self.init.pid, self.key)
        if live is None or live.split() != self.value.split():
            raise NotReadBack(f"sysctl {self.key}: wrote {self.value!r}, reads back {live!r}")
        return None
