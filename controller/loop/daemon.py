"""`masu run`: threads and timers around the controller. Decides nothing about containers."""

from __future__ import annotations

import gc
import queue
import random
import sys
import threading
import time
from collections.abc import Callable

from controller.errors import MasuError
from controller.host.ports import EventLog, Host
from controller.loop.controller import Controller, defect, work
from controller.model.event import Event

STOP, RELOAD = "stop", "reload"
SWITCH_S = 0.0005
"""Whoever was woken by the kernel runs after so long; Python's own 5 ms are most of what a repair takes."""
SETTLE_S = 0.002
"""Several files renamed together are read together."""


class Daemon:
    """Runs in the thread that calls `run`; `stop` and `reload` may be called from anywhere, signals included."""

    def __init__(
        self, controller: Controller, host: Host, log: EventLog, *, workers: int, resync_s: float
    ) -> None:
        self._controller, self._host, self._log = controller, host, log
        self._workers, self._resync_s = workers, resync_s
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting: list[threading.Event] = []
        self._ended = False

    def stop(self) -> None:
        self._inbox.put(STOP)

    def reload(self) -> None:
        self._inbox.put(RELOAD)

    def reload_now(self, wait_s: float) -> bool:
        """→ whether it has been read within so many seconds."""
        read = threading.Event()
        self._waiting.append(read)
        self.reload()
        return not self._ended and read.wait(wait_s)

    def run(
        self,
        ready: Callable[[], None],
        alive: Callable[[], None],
        alive_s: float,
        leave: Callable[[Callable[[float], bool]], None],
    ) -> None:
        """Until `stop`. `alive` is called at least every `alive_s` seconds, if that is not 0.

        `leave` is called when nobody works on containers any more; it is given what waits for so many seconds, and
        says whether it was told to stop once more.
        """
        sys.setswitchinterval(SWITCH_S)
        gc.freeze()  # modules and what they made stay: nobody has to look for garbage among them
        threads = [self._start(index) for index in range(self._workers)]
        self._reload()
        ready()
        self._loop(alive, alive_s)
        self._ended = True
        self._let_go(self._waiting)
        self._controller.queue.close()
        for thread in threads:
            thread.join(timeout=5)
        leave(lambda wait_s: self._receive(wait_s) == STOP)

    def _start(self, index: int) -> threading.Thread:
        arguments = (self._controller, self._log, self._host)
        thread = threading.Thread(target=work, args=arguments, name=f"worker-{index}", daemon=True)
        thread.start()
        return thread

    def _loop(self, alive: Callable[[], None], alive_s: float) -> None:
        resync_at = time.monotonic() + self._jittered()
        while True:
            pause = max(0.0, resync_at - time.monotonic())
            message = self._receive(min(pause, alive_s) if alive_s else pause)
            if message == STOP:
                return
            if message == RELOAD:
                self._host.processes.hasten()  # for a new container, most likely
                time.sleep(SETTLE_S)
                if self._drain():
                    return
                self._reload()
            if time.monotonic() >= resync_at:
                self._reload()
                self._controller.resync()
                resync_at = time.monotonic() + self._jittered()
            alive()

    def _receive(self, timeout: float) -> str:
        try:
            return self._inbox.get(timeout=timeout)
        except queue.Empty:
            return ""

    def _drain(self) -> bool:
        """Swallow what has come in the meantime; True when it was time to stop."""
        while not self._inbox.empty():
            if self._inbox.get() == STOP:
                return True
        return False

    def _reload(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._controller.reload()
        except MasuError as error:
            self._log.event(Event(self._host.clock.wall_ms(), "", error.reason, str(error), level="error"))
        except Exception as error:  # noqa: BLE001  a defect in one reading must not end the repairs
            self._log.event(defect("", error, self._host))
        self._let_go(waiting)

    @staticmethod
    def _let_go(waiting: list[threading.Event]) -> None:
        for each in waiting:
            each.set()

    def _jittered(self) -> float:
        """A fleet that was started together must not look together for ever."""
        return self._resync_s * random.uniform(0.8, 1.2)  # noqa: S311
