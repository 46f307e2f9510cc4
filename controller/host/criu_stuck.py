"""A CRIU that can get no further by itself, while its time has not run out by far.

When init dies, it waits for the zombies of its namespace, which CRIU traces, while CRIU waits for processes that
are gone: neither ever ends (zap_pid_ns_processes in kernel/pid_namespace.c). And whoever is frozen by its cgroup
does nothing for CRIU. CRIU itself is not told to freeze by cgroup: it is always somebody else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

from controller.host.criu_mended import Ice
from controller.host.proc_stat import parse_stat, stat_of
from controller.host.text import read_text
from controller.model.launch import Init
from controller.model.process import ProcessStat

PATIENCE_S: Final = 0.2
"""How long it may look so: CRIU sees most ends by itself, and undoes everything at once."""


class Stuck(Exception):
    """Why, in words. `ended`: nobody is left who could be hurt when CRIU is killed."""

    def __init__(self, why: str, *, ended: bool) -> None:
        super().__init__(why)
        self.ended = ended


class Watch:
    """Over the processes of one dump. `thaws`: nobody else does it meanwhile, and it does it once."""

    def __init__(self, init: Init, ice: Ice, *, thaws: bool) -> None:
        self._init, self._ice, self._thaws = init, ice, thaws
        self._since = 0.0
        self.thawed = False
        self.awaits_end = False
        """From when CRIU may end them itself."""

    def look(self) -> None:
        """As often as one likes, while CRIU says nothing. Raises Stuck."""
        ended = not self.awaits_end and has_ended(self._init)
        if not ended and not self._ice.frozen:
            self._since = 0.0
            return
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since < PATIENCE_S:
            return
        if ended:
            raise Stuck("init has ended, and CRIU could not", ended=True)
        if self.thawed or not self._thaws:
            raise Stuck("CRIU could do nothing, because somebody has frozen its processes", ended=False)
        self._ice.release()
        self.thawed, self._since = True, 0.0


def has_ended(init: Init) -> bool:
    """Also while it is ending: whatever it waits for, it does nothing else any more. All of its threads, that is:
    those that are traced stay as zombies, and are still counted."""
    stat = stat_of(init.pid)
    if stat is None or stat.start_time != init.start_time:
        return True
    return _ends(stat) and all(map(_ends, _threads(init.pid)))


def _ends(stat: ProcessStat) -> bool:
    return stat.exiting or stat.state in "ZX"


def _threads(pid: int) -> Iterator[ProcessStat]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/task"):
            text = read_text(f"/proc/{pid}/task/{name}/stat")
            if text:
                yield parse_stat(int(name), text)
