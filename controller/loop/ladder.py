"""A container that has crashed, or that a reboot has ended, goes on from a checkpoint, or else is started anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from controller.checkpoints.ladder import MOST, candidates
from controller.checkpoints.policy import Policy
from controller.errors import CheckpointDamaged, GuardRefused, HostLacks, KeeperGone, LaunchFailed, MasuError
from controller.host.ports import EventLog, Host
from controller.loop.acting import Acting
from controller.loop.backoff import retry_delay
from controller.model.checkpoint import Checkpoint
from controller.model.event import Event
from controller.reconcile.apply import Failpoint
from controller.reconcile.checkpointing import Acts, unfit
from controller.reconcile.desired import Desired
from controller.reconcile.plan import Plan
from controller.reconcile.preflight import PART
from controller.steps._base import Wait
from controller.steps.runtime import RecordExit

PATIENCE_MS = 300_000
"""So long is waited for a key, a disk or memory that is not there; then the next one is tried."""
SLOTS = 2
"""So many are restored at a time: a restore holds a worker, and all that the container had in memory."""
LOOK_MS = 200
FINAL = (GuardRefused, CheckpointDamaged, LaunchFailed)
"""This checkpoint is no use, whenever it is tried; anything else is the host's, and may pass."""


class Ladder:
    """What is known of the host. `group_of`: container → its cgroup. `paused`: it is not probed meanwhile."""

    def __init__(
        self,
        host: Host,
        failpoint: Failpoint,
        log: EventLog,
        acting: Acting,
        group_of: Callable[[str], str],
        paused: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self._host, self._failpoint, self._log, self._group_of = host, failpoint, log, group_of
        self._paused = paused
        self._acting, self._slots = acting, threading.BoundedSemaphore(SLOTS)
        self._stuck: dict[str, Stuck] = {}

    def is_busy(self, name: str) -> bool:
        """A checkpoint or a restore of it is under way, storing included."""
        return name in self._acting

    def forget(self, name: str) -> None:
        """Nothing of it is to be restored: what kept it from that is over."""
        self._stuck.pop(name, None)

    def for_(self, desired: Desired) -> Climb | None:
        """None: its spec does not ask for that."""
        policy: Policy | None = desired.parts.get(PART)
        if policy is None or policy.never or not policy.restores:
            return None
        name = desired.name
        acts = Acts(self._host, self._failpoint, desired, self._group_of(name), lambda: self._paused(name))
        return Climb(acts, self._log, self._acting, self._slots, self._stuck.setdefault(name, Stuck()))


class Stuck:
    """What keeps one container from being restored, although it may pass. `wait`: until it is tried again."""

    def __init__(self) -> None:
        self.since_ms, self.failures, self.said = 0, 0, ""
        self.wait: Wait | None = None


class Climb:
    """One look at one container, by whoever works on it and has it alone."""

    def __init__(
        self, acts: Acts, log: EventLog, acting: Acting, slots: threading.BoundedSemaphore, stuck: Stuck
    ) -> None:
        self._acts, self._log, self._acting, self._slots, self._stuck = acts, log, acting, slots, stuck
        self._rungs: tuple[Checkpoint, ...] = ()

    def turn(self, found: Plan) -> Wait | None:
        """Read-only. Before a birth: None when there is nothing to restore, and it is to be started."""
        acts, host = self._acts, self._acts.host
        left = host.records.read(acts.name)
        settled = next((each.record for each in found.steps if isinstance(each, RecordExit)), left)
        own = [each for each in host.checkpoints.checkpoints(acts.name) if each.container == acts.name]
        lineage = host.checkpoints.lineage(acts.name)
        if left is not None and left.boot_id == host.facts.boot_id:
            left = settled
        self._rungs = candidates(own, acts.policy, left, host.facts.boot_id, lineage)
        if not self._rungs:
            return None
        return Wait("Restoring", f"goes on from checkpoint {self._rungs[0].id}", host.clock.now_ms())

    def go(self) -> Wait | None:
        """Each that cannot be restored is told, with the reason; then it is to be started. Or: when to go again."""
        name, wait = self._acts.name, self._stuck.wait
        if wait and wait.until > self._acts.host.clock.now_ms():  # whoever has nudged does not shorten it
            return wait
        if not self._slots.acquire(blocking=False):
            return self._later("Queued", f"waits until others are restored, {SLOTS} at a time", LOOK_MS)
        try:
            if not self._acting.begin(name):
                return self._later("Storing", "its newest checkpoint is still being stored", LOOK_MS)
            try:
                return self._go()
            finally:
                self._acting.end(name)
        finally:
            self._slots.release()

    def _go(self) -> Wait | None:
        tried, why = 0, ""
        for each in self._rungs:
            misfit = unfit(each, self._acts.desired.frame)
            why = why or misfit
            if misfit or tried == MOST:
                continue
            try:
                self._acts.restore(each.id)
            except MasuError as error:
                if wait := self._patience(each.id, error):
                    return wait
                tried += 1
                self._tell("RestoreFailed", f"{each.id}: {error}", "warning")
            else:
                self._stuck.since_ms = 0
                self._tell("Restored", f"goes on from checkpoint {each.id}", "info")
                return None
        reason = "none of its checkpoints could be restored" + (f"; {why}" if why else "")
        self._stuck.since_ms = 0
        self._tell("StartsAnew", reason, "warning")
        return None

    def _patience(self, identity: str, error: MasuError) -> Wait | None:
        """None: it is this checkpoint's fault, or has been the host's for too long."""
        stuck, now = self._stuck, self._acts.host.clock.now_ms()
        cause = error.__cause__
        if isinstance(error, FINAL) and not isinstance(cause, (KeeperGone, HostLacks)):
            return None
        if not stuck.since_ms:
            stuck.since_ms, stuck.failures, stuck.said = now, 0, ""
        if now - stuck.since_ms > PATIENCE_MS:
            stuck.since_ms = 0
            return None
        if stuck.said != str(error):
            stuck.said = str(error)
            self._tell("RestoreFailed", f"{identity}: {error}; it is tried again", "warning")
        stuck.failures += 1
        stuck.wait = self._later("RestoreFailed", str(error), round(retry_delay(stuck.failures) * 1000))
        return stuck.wait

    def _later(self, reason: str, message: str, delay_ms: int) -> Wait:
        return Wait(reason, message, self._acts.host.clock.now_ms() + delay_ms)

    def _tell(self, kind: str, message: str, level: str) -> None:
        host = self._acts.host
        self._log.event(Event(host.clock.wall_ms(), self._acts.name, kind, message, level=level))
