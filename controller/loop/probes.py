"""Asks containers whether they are well, and says what that came to. What follows from it, a look decides.

Threads of its own, so that no repair waits for an answer; none while no container has a `health`. A container whose
probes hang holds up one of them. While something is done to a container that must have it alone, it is not asked.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

from controller.errors import MasuError
from controller.host.ports import EventLog, Host
from controller.loop.queue import WorkQueue
from controller.model.event import Event
from controller.model.health import (
    FAILED,
    PASSED,
    UNKNOWN,
    Course,
    Health,
    Verdict,
    after,
    first_in_s,
    next_in_s,
)
from controller.model.launch import Init
from controller.model.record import Record
from controller.reconcile.plan import subject_of
from controller.steps.freezer import frozen_by

MOST_AT_ONCE = 4
"""Each costs as much as a `masu exec`: a wave of containers must not be a wave of processes."""
SETTLE_S = 0.1
"""After a standstill."""


class Probing(Protocol):
    """What the controller tells about containers that it has looked at."""

    def expect(
        self, name: str, group: str, init: Init, health: Health | None, *, disturbed: bool
    ) -> None: ...

    def forget(self, name: str) -> None: ...

    def paused(self, name: str) -> AbstractContextManager[object]: ...

    def close(self) -> None: ...


class NobodyProbes:
    """Without a daemon nobody asks."""

    def expect(self, name: str, group: str, init: Init, health: Health | None, *, disturbed: bool) -> None:
        del name, group, init, health, disturbed

    def forget(self, name: str) -> None:
        del name

    def paused(self, name: str) -> AbstractContextManager[object]:
        del name
        return nullcontext()

    def close(self) -> None:
        return


@dataclass(slots=True, eq=False)
class Asked:
    """One run of one container, by one check. `due`: on the monotonic clock; `said`: the last verdict.

    Made anew whenever any of the first three changes; then nobody waits for what the old one comes to.
    """

    group: str
    init: Init
    health: Health
    due: float
    course: Course = field(default_factory=Course)
    said: Verdict | None = None


class Probes:
    """Thread-safe. `prober`: this process; `nudge`: look at that container, there is something new."""

    def __init__(self, host: Host, log: EventLog, prober: Init, nudge: Callable[[str], object]) -> None:
        self._host, self._log, self._prober, self._nudge = host, log, prober, nudge
        self._lock = threading.Lock()  # of what follows, never held while anybody is asked
        self._asked: dict[str, Asked] = {}
        self._ailing: set[str] = set()
        """Who was said to be unhealthy, in this run or in one before it."""
        self._pauses: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._queue = WorkQueue()

    def expect(self, name: str, group: str, init: Init, health: Health | None, *, disturbed: bool) -> None:
        """After a look at the container, of which there is one at a time. None: it is not to be asked.

        `disturbed`: it stood still for a while, so what is being found says nothing of it.
        """
        if health is None or not init.pid:
            self._drop(name)
            return
        before = self._asked.get(name)
        if before and (before.init, before.health) == (init, health) and not disturbed:
            return
        asked = Asked(group, init, health, time.monotonic() + first_in_s(health, _chance()))
        self._recall(name, asked, before if before and before.init == init else None)
        with self._lock:
            self._asked[name] = asked
            self._begin()
        self._queue.add_at(name, asked.due)

    def forget(self, name: str) -> None:
        """It goes. Called as `expect` is."""
        self._drop(name)
        self._ailing.discard(name)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Whoever is being asked is waited for, no longer than a probe takes; and nobody is asked meanwhile."""
        with self._lock:
            self._pauses[name] += 1  # lest one that takes longer than its interval is begun again and again
        try:
            with self._queue.borrow(name):
                yield
        finally:
            asked = self._asked.get(name)
            if asked:
                asked.due = max(asked.due, time.monotonic() + SETTLE_S)
            with self._lock:
                self._pauses[name] -= 1

    def close(self) -> None:
        """A probe that is under way is not waited for: its time-out holds without masu, and nobody is told."""
        with self._lock:
            self._asked.clear()
        self._queue.close()

    def _drop(self, name: str) -> None:
        if name in self._asked:
            with self._lock:
                del self._asked[name]
                self._host.verdicts.forget(name)

    def _begin(self) -> None:
        while len(self._threads) < MOST_AT_ONCE:
            thread = threading.Thread(target=self._run, name=f"probe-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _recall(self, name: str, asked: Asked, before: Asked | None) -> None:
        """What is known of this run: by this check, by another one, or by another masu.

        Who was found to be unhealthy by that, and is to be restarted for it now, is asked once more as often.
        """
        if before and before.health == asked.health:
            asked.course, asked.said = replace(before.course, row=0), before.said
        elif before:
            asked.course = Course(ripe=before.course.ripe)
        else:
            record = self._host.records.read(name)
            ours = record is not None and Init(record.pid, record.start_time) == asked.init
            noted = record.health if record and ours else None
            if noted and noted.reason == FAILED:
                self._ailing.add(name)
            if noted and (noted.reason == PASSED or asked.health.on_failure == "report"):
                asked.course = Course(noted.reason, noted.message, ripe=noted.reason == PASSED)
                asked.said = noted

    def _run(self) -> None:
        while (name := self._queue.get()) is not None:
            asked = self._asked.get(name)
            try:
                if asked:
                    self._ask_in_time(name, asked)
            except Exception as error:  # noqa: BLE001  what is wrong with one must not end the others
                self._tell(name, "Defect", f"defect in masu: {type(error).__name__}: {error}", "error")
            finally:
                self._again(name)
                self._queue.done(name)

    def _ask_in_time(self, name: str, asked: Asked) -> None:
        now = time.monotonic()
        if self._pauses[name]:
            asked.due = max(asked.due, now + SETTLE_S)
        if now < asked.due:
            return
        asked.due = now + next_in_s(asked.health, _chance())
        record = self._awake(name, asked)
        if record is None:
            return
        age_ms = self._host.clock.now_ms() - record.launched_at
        try:
            status, said = self._host.commands.run(name, asked.group, asked.init, asked.health)
        except MasuError as error:
            if asked.course.message != str(error):
                self._tell(name, "NotProbed", str(error))
            self._settle(name, asked, replace(asked.course, reason=UNKNOWN, message=str(error), row=0))
            return
        if status == 0 or self._awake(name, asked):
            self._settle(name, asked, after(asked.health, asked.course, status, said, age_ms))

    def _again(self, name: str) -> None:
        asked = self._asked.get(name)
        if asked:
            self._queue.add_at(name, asked.due)

    def _awake(self, name: str, asked: Asked) -> Record | None:
        """Read-only. Whoever is being started or stopped, is frozen or has ended has nothing to answer."""
        subject = subject_of(name, asked.group, self._host)
        record = subject.record if subject.pid and subject.init == asked.init else None
        if record is None or record.phase != "running" or frozen_by(self._host, asked.group):
            return None
        return record

    def _settle(self, name: str, asked: Asked, course: Course) -> None:
        verdict = Verdict(course.reason, course.message, self._prober)
        with self._lock:
            if self._asked.get(name) is not asked:
                return  # it has come too late
            asked.course = course
            before, asked.said = asked.said, verdict
            if before == verdict:
                return
            self._host.verdicts.say(name, asked.init, asked.health, verdict)
        if before is None or before.reason != verdict.reason:
            self._tell_change(name, verdict)
        self._nudge(name)

    def _tell_change(self, name: str, verdict: Verdict) -> None:
        if verdict.reason == FAILED:
            self._ailing.add(name)
            self._tell(name, "Unhealthy", verdict.message)
        elif verdict.reason == PASSED and name in self._ailing:
            self._ailing.discard(name)
            self._tell(name, "Healthy", f"it answers again: {verdict.message}", "info")

    def _tell(self, name: str, kind: str, message: str, level: str = "warning") -> None:
        self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level=level))


def _chance() -> float:
    return random.random()  # noqa: S311
