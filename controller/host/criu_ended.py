"""How a CRIU is ended that is to end now, and who it is: written down, so that a later masu finds a stuck one.

One whose masu has ended goes on until it has something to ask, and undoes everything then. So it does not die with
its masu (PR_SET_PDEATHSIG): a CRIU that is killed leaves more behind than one that gives up.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

from controller.errors import NOT_UNDERSTOOD
from controller.frozen import dataclass
from controller.host.criu_mended import Ice
from controller.host.criu_stuck import has_ended
from controller.host.proc_stat import stat_of
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.launch import Init

UNDO_S: Final = 2.0
_END_S: Final = 5.0

Ended = Callable[[float], bool]
"""Whether it ends within so many seconds."""


@dataclass(frozen=True, slots=True)
class Notes:
    """The file with the CRIU that works on one container; `boot_id` of this boot."""

    path: str
    boot_id: str

    def write(self, pid: int, init: Init) -> None:
        """`pid`: of a child of ours. Raises StepFailed."""
        stat = stat_of(pid)
        if stat:
            who = {"pid": pid, "start_time": stat.start_time, "boot_id": self.boot_id, "init": asdict(init)}
            write_atomic(self.path, json.dumps(who), durable=False)

    def remove(self) -> None:
        remove_file(self.path)

    def end(self, ice: Ice) -> tuple[str, ...]:
        """Whoever is noted, should a masu that was killed have left it. → what was done, in words, when it was more
        than to wait until it has given up."""
        said: tuple[str, ...] = ()
        with contextlib.suppress(*NOT_UNDERSTOOD, ProcessLookupError):
            who: dict[str, Any] = json.loads(read_text(self.path) or "")
            criu, init = Init(int(who["pid"]), int(who["start_time"])), Init(**who["init"])
            if who["boot_id"] == self.boot_id and _end(criu, init, ice):
                said = (f"its CRIU, process {criu.pid}, was stuck and is killed",)
        self.remove()
        return said


def _end(criu: Init, init: Init, ice: Ice) -> bool:
    """Whether it was killed. Raises ProcessLookupError."""
    pidfd = os.pidfd_open(criu.pid)
    try:
        stat = stat_of(criu.pid)  # of whom the descriptor is
        if stat is None or stat.start_time != criu.start_time or not _is_criu(criu.pid):
            return False
        asked = select.poll()
        asked.register(pidfd, select.POLLIN)

        def ended(wait_s: float) -> bool:
            return bool(asked.poll(wait_s * 1000))

        if has_ended(init):
            killed = not ended(0)
            kill(criu.pid)
        else:
            ice.release()
            killed = stop(criu.pid, ended, ice)
        ended(_END_S)
        return killed
    finally:
        os.close(pidfd)


def _is_criu(pid: int) -> bool:
    """Or what becomes it."""
    return (read_text(f"/proc/{pid}/comm") or "").strip() in {"criu", "nsenter"}


def stop(pid: int, ended: Ended, ice: Ice) -> bool:
    """Have it give up: its next write to an image fails, and it undoes everything itself. → whether it was killed.

    Only if that takes too long it is: in its first moments that can end the container, because a thread that
    CRIU has made call something comes back to a breakpoint, and nobody waits for it.
    """
    for each in (pid, *_children(pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(each, resource.RLIMIT_FSIZE, (0, 0))
    if ended(UNDO_S):
        return False
    ice.freeze()
    kill(pid)
    return True


def _children(pid: int) -> Iterator[int]:
    """A pre-dump is made by one."""
    yield from map(int, (read_text(f"/proc/{pid}/task/{pid}/children") or "").split())


def kill(pid: int) -> None:
    """With what it has started; it is the leader of its group as long as it is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
