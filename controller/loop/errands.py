"""Commands that containers run because they were notified: a few at once, of each container one after another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from controller.errors import MasuError
from controller.frozen import dataclass
from controller.host.ports import Commands, EventLog, Host
from controller.model.event import Event
from controller.model.launch import Init
from controller.model.notice import Notice
from controller.model.process import TIMED_OUT
from controller.model.quantity import format_duration

MOST_AT_ONCE = 4
"""Of different containers: one whose commands hang delays its own alone."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A command that is to run in a container; `init`: for which the container has to be the same still."""

    name: str
    group: str
    init: Init
    notice: Notice


class ErrandRunner:
    """Thread-safe. Its threads end when there is nothing to do, and keep nobody from ending."""

    def __init__(self, commands: Commands, log: EventLog, host: Host, fit: Callable[[Errand], bool]) -> None:
        self._commands, self._log, self._host, self._fit = commands, log, host, fit
        self._lock = threading.Lock()
        self._waiting: deque[Errand] = deque()
        self._busy: set[tuple[str, Notice]] = set()
        self._served: set[str] = set()
        """Containers of which a command runs."""
        self._threads = 0

    def send(self, errand: Errand) -> bool:
        """False: the one of the last time has not ended yet, or not begun."""
        with self._lock:
            if (errand.name, errand.notice) in self._busy:
                return False
            self._busy.add((errand.name, errand.notice))
            self._waiting.append(errand)
            if self._threads < MOST_AT_ONCE:
                self._threads += 1
                threading.Thread(target=self._work, name="errand", daemon=True).start()
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                errand = self._next()
                if errand is None:
                    self._threads -= 1
                    return
            try:
                self._run(errand)
            finally:
                with self._lock:
                    self._served.discard(errand.name)
                    self._busy.discard((errand.name, errand.notice))

    def _next(self) -> Errand | None:
        """None: whoever waits, waits for one of its own container, and the thread of that one will come for it."""
        found = next((each for each in self._waiting if each.name not in self._served), None)
        if found:
            self._waiting.remove(found)
            self._served.add(found.name)
        return found

    def _run(self, errand: Errand) -> None:
        """It may have waited for others, so whether the container is there is asked once more."""
        if not self._fit(errand):
            return
        began = time.monotonic()
        try:
            status, said = self._commands.run(errand.name, errand.group, errand.init, errand.notice)
        except MasuError as error:
            status, said = 1, str(error)
        self._log.event(self._told(errand, status, said, time.monotonic() - began))

    def _told(self, errand: Errand, status: int, said: str, took_s: float) -> Event:
        command = " ".join(errand.notice.command)
        if status == 0:
            message = f"{errand.notice.on}: {command}: done in {took_s:.1f}s"
            return Event(self._host.clock.wall_ms(), errand.name, "Notified", message)
        limit = format_duration(errand.notice.timeout_ms)
        why = f"killed after {limit}" if status == TIMED_OUT else f"ended with {status}"
        message = f"{errand.notice.on}: {command}: {why}" + (f": {said}" if said else "")
        return Event(self._host.clock.wall_ms(), errand.name, "NotifyFailed", message, level="warning")
