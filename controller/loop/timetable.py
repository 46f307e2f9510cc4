"""Checkpoints at the moments that the specs name: one after the other, each told, none in silence."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from controller.checkpoints.policy import Policy
from controller.checkpoints.schedule import Past
from controller.errors import MasuError
from controller.host.ports import EventLog, Host
from controller.loop.controller import defect
from controller.model.attempts import Attempts
from controller.model.event import Event
from controller.model.record import Record
from controller.reconcile.desired import Desired
from controller.reconcile.preflight import PART
from controller.reconcile.timing import last_started, next_due, runs, scheduled

LOOK_S = 1.0
"""How often it is asked what is due, if there is a schedule at all; the clock on the wall may be set meanwhile."""
REST_S = 5.0
"""If there is none: somebody may have one by now."""

LAST_WAIT_S = 10.0
TELL_AGAIN_MS: Final = 3_600_000
"""What still fails for the same reason is told as often as that."""
_NUMBER: Final = re.compile(r"\d+(\.\d+)?([KMGTPE]i)?")

Act = Callable[[str], object]


class Timetable:
    """A thread of its own until `close`. `wanted`: what each container is to be; `act`: makes one checkpoint."""

    def __init__(
        self, host: Host, log: EventLog, wanted: Callable[[], Mapping[str, Desired]], act: Act
    ) -> None:
        self._host, self._log, self._wanted, self._act = host, log, wanted, act
        self._past: dict[str, Past] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timetable", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """What is being done is waited for, but not for long: it can be broken off anywhere."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(LAST_WAIT_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            found = {name: each for name, each in self._wanted().items() if scheduled(each)}
            self._past = {name: each for name, each in self._past.items() if name in found}
            for name, desired in sorted(found.items()):
                if not self._closed.is_set():
                    self._look(name, desired.parts[PART])
            self._closed.wait(LOOK_S if found else REST_S)

    def _look(self, name: str, policy: Policy) -> None:
        try:
            record = self._host.records.read(name)
            if record is None or not runs(record, self._host):
                return
            past = self._past_of(name, record)
            moment = next_due(policy, name, past, self._host)
            if moment is None or moment.at_ms > self._host.clock.now_ms():
                return
            if moment.skipped:
                self._tell(
                    name, "CheckpointSkipped", f"{moment.skipped} were due while the last one was made"
                )
            self._make(name, past)
        except MasuError as error:
            self._fail(name, str(error))
        except Exception as error:  # noqa: BLE001  a defect in one look must not end the others
            found = defect(name, error, self._host)
            self._fail(name, found.message)

    def _make(self, name: str, past: Past) -> None:
        """What fails is not tried again before the next moment."""
        started = self._host.clock.now_ms()
        try:
            self._act(name)
        finally:
            ended = self._host.clock.now_ms()
            self._past[name] = replace(past, started_ms=started, ended_ms=ended)

    def _past_of(self, name: str, record: Record) -> Past:
        """After a restart of masu, the store knows what has been."""
        known = self._past.get(name)
        if known is None:
            started = last_started(name, self._host)
            known = self._past[name] = Past(0, started, started)
        return replace(known, born_ms=record.launched_at)

    def _fail(self, name: str, why: str) -> None:
        """Noted each time. Of the same reason, whatever its numbers, the first time is told, and then each hour."""
        before, clock = self._host.attempts.read(name) or Attempts(), self._host.clock
        noted = replace(before, failures=before.failures + 1, said=why, failed_ms=clock.wall_ms())
        if name in self._wanted():  # it may have gone meanwhile, with every trace
            self._host.attempts.write(name, noted)
        said, now = _NUMBER.sub("", why), clock.now_ms()
        last, at = self._told.get(name, ("", 0))
        if not before.said or last != said or now - at >= TELL_AGAIN_MS:
            self._told[name] = said, now
            self._tell(name, "CheckpointFailed", why)

    def _tell(self, name: str, kind: str, message: str) -> None:
        self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level="warning"))
