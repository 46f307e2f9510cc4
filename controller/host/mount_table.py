"""What is mounted where, as a process sees it: read through /proc, without entering its namespaces.

Source: proc_pid_mountinfo(5), proc_pid_fdinfo(5) (`mnt_id`), openat2(2).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from controller.errors import StepFailed
from controller.host import syscalls
from controller.host.mountinfo import Mount, is_far, is_programs, lines_of, mount_of, mount_under
from controller.host.text import DELETED, failed, read_text
from controller.model.process import MountSeen

_RACED_ATTEMPTS: Final = 8
NOWHERE: Final = MountSeen("", frozenset(), None)


def look(pid: int, wanted: Mapping[str, str]) -> Mapping[str, MountSeen] | None:
    """See `Inside.mounts`. Raises StepFailed."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise failed(error, "opening", f"/proc/{pid}/root") from error
    try:
        table = Table(pid)
        seen = {target: _seen(table, root, target, source) for target, source in wanted.items()}
    finally:
        os.close(root)
    return {target: each for target, each in seen.items() if each}


def mounted(path: str) -> Mount | None:
    """The mount that a path of the host is on; None: it has just gone. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return Table(os.getpid()).mount(descriptor, fresh=True)
    finally:
        os.close(descriptor)


def path_inside(descriptor: int) -> str:
    """Where an open file is, from the top of its mount namespace: links and `..` are resolved.

    What a mount shows may have been removed on the host; the mount is there all the same.
    """
    return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(DELETED)


class Table:
    """The mounts of a process by their ids: read once, and anew where that is not enough."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lines: dict[str, str] = {}
        self._is_safe: bool | None = None

    def open(self, root: int, target: str) -> int:
        """What `target` means to the process. Raises OSError; EAGAIN where only a program may know, which may never
        answer.
        """
        if self._is_safe is None:
            text = self._read()
            self._lines, self._is_safe = dict(lines_of(text)), not of_programs(text)
        return syscalls.open_below(root, target, known=not self._is_safe)

    def mount(self, descriptor: int, *, fresh: bool) -> Mount | None:
        """That an open file is on. No other mount has its id while it is open, but one that is gone may have had
        it before: only a `fresh` line is certain.
        """
        found = mount_under(read_text(f"/proc/self/fdinfo/{descriptor}") or "")
        if found and (fresh or found not in self._lines):
            self._lines = dict(lines_of(self._read()))
        line = self._lines.get(found)
        return mount_of(line) if line else None

    def _read(self) -> str:
        return read_text(f"/proc/{self.pid}/mountinfo") or ""


def of_programs(table: str) -> frozenset[str]:
    """Where file systems of programs (FUSE) are mounted that the host does not have itself: what it has is of its
    administrator's choice.
    """
    if " - fuse" not in table:
        return frozenset()
    ours = {_device(line) for _, line in lines_of(read_text("/proc/self/mountinfo") or "")}
    found = (mount_of(line) for _, line in lines_of(table) if _device(line) not in ours)
    return frozenset(each.target for each in found if each and is_programs(each.kind))


def _device(line: str) -> str:
    """Its number, of the file system."""
    return line.split(" ", 3)[2]


def _seen(table: Table, root: int, target: str, source: str) -> MountSeen | None:
    """The kernel tells which mount a path ends in; it is mounted there if it also begins there.

    Raises StepFailed when mounts come and go too fast.
    """
    for attempt in range(_RACED_ATTEMPTS):
        try:
            descriptor = table.open(root, target)
        except (FileNotFoundError, NotADirectoryError):
            return NOWHERE
        except OSError:
            return None
        try:
            found = table.mount(descriptor, fresh=attempt > 0)
            if found is None:
                continue  # it was unmounted meanwhile
            if found.target != path_inside(descriptor):
                if attempt:
                    return None
                continue
            return MountSeen(found.kind, frozenset(found.options), _shows(descriptor, source, found.kind))
        finally:
            os.close(descriptor)
    raise StepFailed(
        f"{target} of process {table.pid} is being mounted and unmounted all the time", path=target
    )


def _shows(descriptor: int, source: str, kind: str) -> bool | None:
    if not source or is_far(kind):
        return None
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(source))
    except OSError:
        return None  # the source is gone; what was mounted stays


def mentioned(path: str) -> bool:
    """Whether any process of the host sees a mount with that in its line."""
    known: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            continue
        if namespace not in known and path in (read_text(f"/proc/{pid}/mountinfo") or ""):
            return True
        known.add(namespace)
    return False
