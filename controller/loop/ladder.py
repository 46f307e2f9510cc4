"""A container that has crashed, or that a reboot has ended, goes on from a checkpoint, or else is started anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from controller.checkpoints.ladder import after_crash, after_reboot
from controller.checkpoints.policy import Policy
from controller.errors import MasuError
from controller.host.ports import EventLog, Host
from controller.model.event import Event
from controller.reconcile.apply import Failpoint
from controller.reconcile.checkpointing import Acts
from controller.reconcile.desired import Desired
from controller.reconcile.plan import Plan
from controller.reconcile.preflight import PART
from controller.steps._base import Wait
from controller.steps.runtime import RecordExit


class Ladder:
    """What is known of the host. `group_of`: container → its cgroup."""

    def __init__(
        self, host: Host, failpoint: Failpoint, log: EventLog, group_of: Callable[[str], str]
    ) -> None:
        self._host, self._failpoint, self._log, self._group_of = host, failpoint, log, group_of

    def for_(self, desired: Desired) -> Climb | None:
        """None: its spec does not ask for that."""
        policy: Policy | None = desired.parts.get(PART)
        if policy is None or policy.never or not policy.restores:
            return None
        acts = Acts(self._host, self._failpoint, desired, self._group_of(desired.name), nullcontext)
        return Climb(acts, self._log)


class Climb:
    """One look at one container, by whoever works on it and has it alone."""

    def __init__(self, acts: Acts, log: EventLog) -> None:
        self._acts, self._log = acts, log
        self._rungs: tuple[str, ...] = ()

    def turn(self, found: Plan) -> Wait | None:
        """Read-only. Before a birth: None when there is nothing to restore, and it is to be started."""
        acts, host = self._acts, self._acts.host
        own = [each for each in host.checkpoints.checkpoints(acts.name) if each.container == acts.name]
        left = host.records.read(acts.name)
        if left is None or left.boot_id != host.facts.boot_id:
            self._rungs = after_reboot(own, acts.policy, left, host.facts.boot_id)
        else:
            settled = (each.record for each in found.steps if isinstance(each, RecordExit))
            self._rungs = after_crash(own, acts.policy, next(settled, left))
        if not self._rungs:
            return None
        return Wait("Restoring", f"goes on from checkpoint {self._rungs[0]}", host.clock.now_ms())

    @property
    def due(self) -> bool:
        """The last `turn` has found something, and nobody has started it."""
        return bool(self._rungs)

    def go(self) -> None:
        """Each that could not be restored is told, with the reason; then it is to be started."""
        for identity in self._rungs:
            try:
                self._acts.restore(identity)
            except MasuError as error:
                self._tell("RestoreFailed", f"{identity}: {error}", "warning")
            else:
                self._tell("Restored", f"goes on from checkpoint {identity}", "info")
                return
        self._tell("StartsAnew", "none of its checkpoints could be restored", "warning")

    def _tell(self, kind: str, message: str, level: str) -> None:
        host = self._acts.host
        self._log.event(Event(host.clock.wall_ms(), self._acts.name, kind, message, level=level))
