"""The health check as the last word on a restore."""

from __future__ import annotations

from typing import ClassVar

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.health import Health, failed
from controller.model.launch import Init
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.living import live_pid

LONGEST_PAUSE_MS = 1_000
"""Processes that were restored answer at once, or not at all: whoever waits for them has waited enough."""


@dataclass(frozen=True, slots=True)
class ProveHealth(Step):
    """Ask until it answers, as often as its spec bears failures. Raises StepFailed when it does not."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    group: str
    health: Health

    @property
    def text(self) -> str:
        return "wait until its health check passes"

    def apply(self, host: Host) -> Wait | None:
        status, said = 0, ""
        for row in range(self.health.failures):
            if row:
                host.clock.sleep_ms(min(self.health.interval_ms, LONGEST_PAUSE_MS))
            status, said = host.commands.run(self.container, self.group, self._init(host), self.health)
            if status == 0:
                return None
        raise StepFailed(failed(self.health, self.health.failures, status, said))

    def _init(self, host: Host) -> Init:
        record = host.records.read(self.container)
        pid = live_pid(host, record)
        if record is None or not pid:
            raise StepFailed("it has ended before its health check passed")
        return Init(pid, record.start_time)
