"""The Processes port on real /proc: looking at processes, signalling them by pidfd."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping

from controller.errors import NotPermitted, StepFailed
from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import branches
from controller.host.proc_stat import stat_of
from controller.host.text import failed, read_text
from controller.model.cgroups import budget_of
from controller.model.facts import CORE
from controller.model.process import IdMap, ProcessStat, parse_extents

KILL_WAIT_S = 5.0
KILL_PAUSES_S = (0.0002, 0.0004, 0.0008, 0.0016, 0.0032)
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


class ProcDirectory:
    """Every method may be called from any thread."""

    def __init__(self, homes: Homes) -> None:
        self._homes, self._facts = homes, homes.facts
        self._own = _namespaces_of("self")
        self._hastening = threading.Lock()

    def stat(self, pid: int) -> ProcessStat | None:
        return stat_of(pid)

    def signal(self, pid: int, start_time: int, number: int) -> None:
        """Signal exactly the process that was started then; one that is gone needs none."""
        try:
            with _pidfd(pid) as descriptor:
                found = self.stat(pid)
                if found and found.start_time == start_time:
                    signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        except OSError as error:
            raise failed(error, f"sending signal {number} to", f"/proc/{pid}") from error

    def kill(self, pid: int, start_time: int) -> None:
        """SIGKILL exactly the process that was started then, and wait for its end; one that is gone needs none."""
        self.signal(pid, start_time, signal.SIGKILL)
        deadline = time.monotonic() + KILL_WAIT_S
        while (found := self.stat(pid)) and found.start_time == start_time and not found.ended:
            if time.monotonic() > deadline:
                raise StepFailed(f"process {pid} does not end after SIGKILL", path=f"/proc/{pid}")
            time.sleep(0.001)

    def namespaces(self, pid: int) -> Mapping[str, int]:
        """Namespace type → inode, from /proc/PID/ns; a process that is gone has none."""
        return _namespaces_of(str(pid)) if pid else self._own

    def namespace(self, pid: int, kind: str) -> int:
        return _namespace_of(str(pid), kind)

    def id_map(self, pid: int) -> IdMap | None:
        uids, gids = read_text(f"/proc/{pid}/uid_map"), read_text(f"/proc/{pid}/gid_map")
        if uids is None or gids is None:
            return None
        offsets = read_text(f"/proc/{pid}/timens_offsets") or ""
        return IdMap(parse_extents(uids), parse_extents(gids), tuple(_offsets(offsets)))

    def groups(self, pid: int) -> Mapping[str, str]:
        """cgroup mount → path below it, from /proc/PID/cgroup (cgroups(7)); newlines alone are in no name there."""
        found: dict[str, str] = {}
        for line in filter(None, (read_text(f"/proc/{pid}/cgroup") or "").split("\n")):
            _, names, path = line.split(":", 2)
            hierarchy = self._facts.hierarchy(names.split(",")[0] if names else CORE)
            if hierarchy and (bool(names) == (hierarchy.version == 1)):
                found[hierarchy.mount] = path
        return found

    def hasten(self) -> None:
        """Whoever moves a process into a cgroup first after a while waits until every cpu has seen that somebody
        does, 5 to 15 ms; whoever comes soon after does not (kernel/cgroup/cgroup.c, cgroup_threadgroup_rwsem). So
        masu moves itself to where it is, which changes nothing else.
        """
        if self._hastening.acquire(blocking=False):
            try:
                threading.Thread(target=self._hasten, name="haste", daemon=True).start()
            except RuntimeError:  # no thread to be had
                self._hastening.release()

    def _hasten(self) -> None:
        try:
            with contextlib.suppress(OSError, StepFailed, NotPermitted):  # it was worth a try
                mount, path = next(iter(self.groups(os.getpid()).items()), ("", ""))
                with open(f"{mount}{path}/cgroup.procs", "w") as knob:
                    knob.write(str(os.getpid()))
        finally:
            self._hastening.release()

    def kill_group(self, group: str) -> None:
        """SIGKILL everything in the group, in every hierarchy, until it is empty.

        cgroup.kill does it at once where the mount has it (kernel 5.14), also in the groups below; who is left, or
        is in the group only in another hierarchy, is killed process by process.
        """
        deadline = time.monotonic() + KILL_WAIT_S
        self._kill_at_once(group)
        pause = 0.0002
        while members := self._members(group):
            for pid in members:
                self._kill_member(pid, group)
            if time.monotonic() > deadline:
                raise StepFailed(f"processes {members[:5]} of {group} do not end after SIGKILL", path=group)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def _members(self, group: str) -> list[int]:
        pids: set[int] = set()
        for place in (place for each in self._facts.hierarchies for place in self._homes.places(each, group)):
            for path in branches(place):
                pids.update(int(word) for word in (read_text(f"{path}/cgroup.procs") or "").split())
        return sorted(pid for pid in pids if pid and not self._ended(pid))

    def _ended(self, pid: int) -> bool:
        stat = self.stat(pid)
        return stat is None or stat.ended

    def _kill_at_once(self, group: str) -> None:
        """And wait a little until there is nobody in it, as far as the mount that has this knows."""
        core = self._homes.core(group)
        if core is None or not _peopled(core):
            return
        with contextlib.suppress(OSError):
            with open(f"{core}/cgroup.kill", "w") as knob:
                knob.write("1")
            for pause in KILL_PAUSES_S:
                time.sleep(pause)
                if not _peopled(core):
                    return

    def _kill_member(self, pid: int, group: str) -> None:
        """Look again through the pidfd before killing: the number may belong to somebody else by now."""
        with contextlib.suppress(OSError), _pidfd(pid) as descriptor:
            if any(budget_of(group, path) is not None for path in self.groups(pid).values()):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _namespaces_of(process: str) -> dict[str, int]:
    found = {kind: _namespace_of(process, kind) for kind in NAMESPACES}
    return {kind: inode for kind, inode in found.items() if inode}


def _namespace_of(process: str, kind: str) -> int:
    """0 when the process is gone, or the kernel has no such namespaces."""
    try:
        return os.stat(f"/proc/{process}/ns/{kind}").st_ino
    except OSError:
        return 0


def _peopled(core: str) -> bool:
    return "populated 1" in (read_text(f"{core}/cgroup.events") or "").splitlines()


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _offsets(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        clock, seconds, nanoseconds = line.split()
        yield clock, int(seconds) * 1_000_000_000 + int(nanoseconds)
