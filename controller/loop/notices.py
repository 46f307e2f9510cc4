"""Tells, and has containers told, before it hurts; and counts what the kernel counts. Decides nothing of limits.

A thread of its own, so that no repair waits for it: whoever reconciles says whom to expect, and waits for no look;
only a removal waits, for the end of one at the same container. Counters are compared whenever somebody says that
they moved, at most once a second; pressure has no memory, so a trigger is told once and armed again after a pause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from controller.errors import MasuError
from controller.host.ports import Commands, EventLog, Host, Triggers
from controller.loop.errands import Errand, ErrandRunner
from controller.loop.queue import WorkQueue
from controller.model.counters import Tally
from controller.model.event import Event
from controller.model.launch import Init
from controller.model.notice import OOM_ON_V1, Notice, Watch
from controller.reconcile.measure import measured
from controller.reconcile.plan import subject_of
from controller.steps.counting import sample
from controller.steps.freezer import frozen_by

SETTLE_S = 0.05
"""A counter that moves, moves on; v1 tells of a kill a little before it, so it is looked at again after a pause."""
PAUSE_S = 1.0
FAILED_S = 5.0
SAVE_S = 30.0
"""How much of what only time adds to may be lost with a group that somebody removes."""
SAMPLE_S = 20.0
COUNTERS = frozenset({"counter", "oom"})
"""Ways of watching behind which there is a counter, so that nothing is ever missed."""


class Noticing(Protocol):
    """What the controller tells about containers that it has looked at."""

    def expect(
        self, name: str, group: str, init: Init, notices: tuple[Notice, ...], *, sampled: bool
    ) -> None: ...

    def forget(self, name: str) -> None: ...

    def wake(self, name: str, watch: Watch | None) -> None: ...

    def close(self) -> None: ...


class NobodyNotices:
    """Without a daemon there is nobody to watch."""

    def expect(
        self, name: str, group: str, init: Init, notices: tuple[Notice, ...], *, sampled: bool
    ) -> None:
        del name, group, init, notices, sampled

    def forget(self, name: str) -> None:
        del name

    def wake(self, name: str, watch: Watch | None) -> None:
        del name, watch

    def close(self) -> None:
        return


@dataclass(slots=True)
class Watched:
    """What is known of one container.

    `init`, `notices` and `refused` are changed by whoever reconciles it; the rest by the thread, under `looking`.

    `quiet`: until when nothing more is said of an entry; `told`: its counter when something was; `again`: when a
    watch that has woken somebody is to be armed again.
    """

    group: str
    init: Init
    tally: Tally
    notices: tuple[Notice, ...] = ()
    looked_at: float = -PAUSE_S
    saved_at: float = 0.0
    quiet: dict[Notice, float] = field(default_factory=dict)
    told: dict[Notice, int] = field(default_factory=dict)
    again: dict[Watch, float] = field(default_factory=dict)
    refused: dict[Watch, str] = field(default_factory=dict)
    looking: threading.Lock = field(default_factory=threading.Lock)

    def next_look(self, now: float) -> float | None:
        """When something is due that nobody will wake for."""
        later = [when for when in (*self.again.values(), *self._pending()) if when > now]
        return min(later, default=None)

    def prune(self) -> None:
        """Forget what was known of entries that are gone."""
        for known in (self.quiet, self.told):
            for notice in set(known) - set(self.notices):
                del known[notice]

    def value(self, notice: Notice) -> int:
        total = self.tally.total
        return (total.high if notice.on == "memory.high" else total.oom_kills) or 0

    def _pending(self) -> Iterator[float]:
        for notice in self.notices:
            if notice.watch.how in COUNTERS and self.value(notice) > self.told.get(notice, 0):
                yield self.quiet.get(notice, 0.0)


class Notices:
    """Thread-safe."""

    def __init__(self, host: Host, log: EventLog, triggers: Triggers, commands: Commands) -> None:
        self._host, self._log, self._triggers = host, log, triggers
        self._errands = ErrandRunner(
            commands, log, host, lambda each: self._awake(each.name, each.group) == each.init
        )
        self._lock = threading.Lock()  # of the two maps alone, never held through a look
        self._watched: dict[str, Watched] = {}
        self._woken: dict[str, set[Watch]] = {}
        self._queue = WorkQueue()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def expect(
        self, name: str, group: str, init: Init, notices: tuple[Notice, ...], *, sampled: bool
    ) -> None:
        """After a look at the container, of which there is one at a time.

        `sampled`: its counters grow without anybody saying so.
        """
        watched = self._get(name)
        fresh = watched is None or (watched.init, watched.notices) != (init, notices)
        if watched is None:
            watched = Watched(group, init, self._host.tallies.read(name) or Tally())
            with self._lock:
                self._watched[name] = watched
        watched.init, watched.notices = init, notices
        self._arm(name, watched)
        if fresh or (sampled and time.monotonic() - watched.looked_at > SAMPLE_S):
            self._queue.add(name)

    def forget(self, name: str) -> None:
        """From now on nothing is written about it. Called as `expect` is."""
        with self._lock:
            watched = self._watched.pop(name, None)
            self._woken.pop(name, None)
        if watched:
            with watched.looking:  # the look that is under way, the last
                self._triggers.disarm(name)

    def wake(self, name: str, watch: Watch | None) -> None:
        """From the watching thread: the kernel has told of this; None: a counter has moved."""
        with self._lock:
            watched = self._watched.get(name)
            if watched is None:
                return
            if watch is not None:
                self._woken.setdefault(name, set()).add(watch)
        if watch is None or watch.how in COUNTERS:
            self._queue.add_at(name, max(time.monotonic() + SETTLE_S, watched.looked_at + PAUSE_S))
        else:
            self._queue.add(name)

    def close(self) -> None:
        self._queue.close()
        self._thread.join(2)

    def _run(self) -> None:
        while (name := self._queue.get()) is not None:
            with self._lock:
                woken, watched = self._woken.pop(name, set()), self._watched.get(name)
            try:
                if watched:
                    with watched.looking:
                        if self._get(name) is watched:
                            self._look(name, watched, woken, time.monotonic())
            except MasuError as error:
                self._later(name, woken)
                self._tell(name, error.reason, str(error))
            except Exception as error:  # noqa: BLE001  what is wrong with one must not end the others
                self._later(name, woken)
                self._tell(name, "Defect", f"defect in masu: {type(error).__name__}: {error}", "error")
            finally:
                self._queue.done(name)

    def _later(self, name: str, woken: set[Watch]) -> None:
        """What could not be looked at has come all the same, and would never be armed again."""
        with self._lock:
            self._woken.setdefault(name, set()).update(woken)
        self._queue.add_at(name, time.monotonic() + FAILED_S)

    def _get(self, name: str) -> Watched | None:
        with self._lock:
            return self._watched.get(name)

    def _look(self, name: str, watched: Watched, woken: set[Watch], now: float) -> None:
        watched.prune()
        self._count(name, watched, now)
        awake: Init | None = None
        due = list(self._due(watched, woken, now))
        if due:
            awake = self._awake(name, watched.group)
        for notice in due:
            watched.told[notice] = watched.value(notice)
            if awake:
                watched.quiet[notice] = now + notice.every_ms / 1000
                self._notify(name, watched, notice, awake)
        self._arm_again(name, watched, woken, now)
        watched.looked_at = now
        later = watched.next_look(now)
        if later is not None:
            self._queue.add_at(name, later)

    def _count(self, name: str, watched: Watched, now: float) -> None:
        before, watched.tally = watched.tally, watched.tally.after(sample(self._host, watched.group))
        if watched.tally == before:
            return
        was, total = before.total, watched.tally.total
        killed = (total.oom_kills or 0) - (was.oom_kills or 0)
        if killed:
            self._tell(name, "OomKilled", _killed(killed, total.oom_kills or 0))
        lasting = killed or watched.tally.before != before.before
        if total.any and (lasting or now - watched.saved_at > SAVE_S):
            self._host.tallies.write(name, watched.tally)
            watched.saved_at = now

    def _due(self, watched: Watched, woken: Iterable[Watch], now: float) -> Iterator[Notice]:
        """What has come, and was not said only just now."""
        for notice in watched.notices:
            if notice.watch.how in COUNTERS:
                known = watched.told.setdefault(notice, watched.value(notice))
                come = watched.value(notice) > known
            else:
                come = notice.watch in woken
            if come and now >= watched.quiet.get(notice, 0.0):
                yield notice

    def _notify(self, name: str, watched: Watched, notice: Notice, init: Init) -> None:
        sent = not notice.command or self._errands.send(Errand(name, watched.group, init, notice))
        late = "" if sent else "; the command of the last time has not ended"
        if notice.on != "oom":
            self._tell(name, notice.event, measured(self._host, watched.group, notice) + late)
        elif late:
            self._tell(name, "NotifyFailed", f"oom{late}")

    def _arm_again(self, name: str, watched: Watched, woken: Iterable[Watch], now: float) -> None:
        """When the first entry that it is for may speak again."""
        for watch in woken:
            until = [watched.quiet.get(each, 0.0) for each in watched.notices if each.watch == watch]
            watched.again[watch] = max(min(until, default=0.0), now + PAUSE_S)
        for watch in [each for each, when in watched.again.items() if when <= now]:
            del watched.again[watch]
            self._triggers.arm_again(name, watch)

    def _arm(self, name: str, watched: Watched) -> None:
        wanted = {each.watch for each in watched.notices}
        if self._host.facts.version("memory") == 1:
            wanted.add(OOM_ON_V1)
        refused = dict(self._triggers.arm(name, watched.group, wanted))
        for watch, why in refused.items():
            if watched.refused.get(watch) != why:
                self._tell(name, "NotWatched", f"nobody can be notified: {why}")
        watched.refused = refused

    def _awake(self, name: str, group: str) -> Init | None:
        """Read-only. A container that is frozen or has ended can do nothing about it."""
        subject = subject_of(name, group, self._host)
        return subject.init if subject.pid and not frozen_by(self._host, group) else None

    def _tell(self, name: str, kind: str, message: str, level: str = "warning") -> None:
        self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level=level))


def _killed(victims: int, total: int) -> str:
    what = "a process" if victims == 1 else f"{victims} processes"
    return f"out of memory: the kernel ended {what}; {total} so far"
