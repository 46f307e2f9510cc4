"""The last checkpoints before masu ends, of those whose specs ask for one then: within a time, each told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping

from controller.checkpoints.policy import Policy
from controller.errors import MasuError
from controller.host.ports import EventLog, Host
from controller.loop.controller import defect
from controller.model.event import Event
from controller.reconcile.desired import Desired
from controller.reconcile.preflight import PART
from controller.reconcile.timing import runs

SIDE_BY_SIDE = 2
LOOK_S = 0.05

Act = Callable[[str, float], object]
"""Makes one checkpoint of a container, and waits no longer than so many seconds for one that is under way."""


class Farewell:
    """`wanted`: what each container is to be. `wait_s`: how long all of it may take."""

    def __init__(
        self, host: Host, log: EventLog, wanted: Callable[[], Mapping[str, Desired]], act: Act, wait_s: float
    ) -> None:
        self._host, self._log, self._act, self._wait_s = host, log, act, wait_s
        self.names = tuple(name for name, each in sorted(wanted().items()) if self._asks(each))
        self._left: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._open = set(self.names)
        self._closed = threading.Event()

    def say(self, urged: Callable[[float], bool]) -> None:
        """`urged`: waits for so many seconds; true: somebody does not want to wait any more."""
        if not self.names:
            return
        what = f"{len(self.names)} last checkpoint{'s' * (len(self.names) != 1)} first"
        self._tell(
            "", "Leaving", f"{what}, for {self._wait_s:g} s at most; a second signal ends that", "info"
        )
        for name in self.names:
            self._left.put(name)
        deadline = time.monotonic() + self._wait_s
        count = min(SIDE_BY_SIDE, len(self.names))
        threads = [
            threading.Thread(target=self._work, args=(deadline,), name=f"farewell-{index}", daemon=True)
            for index in range(count)
        ]
        for each in threads:
            each.start()
        hurried = False
        while any(each.is_alive() for each in threads) and time.monotonic() < deadline and not hurried:
            hurried = urged(LOOK_S)
        self._closed.set()
        why = "somebody did not want to wait" if hurried else f"it took longer than {self._wait_s:g} s"
        for name in sorted(self._open):
            self._tell(name, "CheckpointSkipped", f"none at the end: {why}")

    def _asks(self, desired: Desired) -> bool:
        policy: Policy = desired.parts[PART]
        record = self._host.records.read(desired.name)
        return policy.on_shutdown == "checkpoint" and not policy.never and runs(record, self._host)

    def _work(self, deadline: float) -> None:
        while not self._closed.is_set():
            try:
                name = self._left.get_nowait()
            except queue.Empty:
                return
            self._make(name, deadline)
            self._open.discard(name)

    def _make(self, name: str, deadline: float) -> None:
        try:
            self._act(name, max(0.0, deadline - time.monotonic()))
        except MasuError as error:
            self._tell(name, "CheckpointFailed", str(error))
        except Exception as error:  # noqa: BLE001  a defect in one must not end the others
            self._log.event(defect(name, error, self._host))

    def _tell(self, name: str, kind: str, message: str, level: str = "warning") -> None:
        self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level=level))
