"""Nudges from the kernel: inotify on cgroup directories, pidfds of inits, their mount tables, netlink, devices,
triggers and eventfds of pressure.

One thread, one epoll.

An event carries no truth, only the name of whom to look at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

from controller.host.cgroups.homes import Homes
from controller.host.inits import Inits
from controller.host.network_watch import NetworkWatch
from controller.host.retired import Retired
from controller.host.triggers import TriggerFiles
from controller.host.uevents import DeviceWatch
from controller.model.cgroups import key_of_directory

IN_MODIFY = 0x002
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
MASK = IN_MODIFY | IN_DELETE | IN_DELETE_SELF
"""One for all: a directory may be watched for itself and for what is in it, and has one watch all the same."""
CHANGED = select.EPOLLPRI | select.EPOLLET
"""Armed once: to arm it again would poll the file, and a mount table tells each change to one poll alone."""
EVENT = struct.Struct("iIII")
COUNTED_FILE = b"memory.events"
COUNTERS = frozenset({COUNTED_FILE, b"memory.events.local", b"memory.swap.events", b"pids.events"})
"""The kernel bumps them while a limit is being hit; nothing that masu owns changes with them."""
REQUESTS = frozenset({b"cgroup.event_control", b"cgroup.kill"})
"""Written by whoever wants to be told of something, and to end a container, which its pidfd tells."""
DOORS = frozenset({b"cgroup.procs", b"tasks"})
"""Guests come in through them, as every probe does. Who is taken out is written to another group's."""
QUIET_FILES = COUNTERS | REQUESTS | DOORS

Nudge = Callable[[str], None]
Found = tuple[tuple[str, int], ...]
"""Directories with their inodes."""


class KernelWatch:
    """Thread-safe. `nudge` is called from the watching thread and must be quick."""

    def __init__(
        self,
        homes: Homes,
        inits: Inits,
        nudge: Nudge,
        overflow: Callable[[], None],
        complain: Callable[[str], None],
        network: NetworkWatch,
        devices: DeviceWatch,
        triggers: TriggerFiles,
    ) -> None:
        self._homes, self._inits = homes, inits
        libc = ctypes.CDLL(None, use_errno=True)
        self._add_watch, self._remove_watch = libc.inotify_add_watch, libc.inotify_rm_watch
        self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._nudge, self._overflow, self._complain = nudge, overflow, complain
        self._blind = False
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._watches: dict[str, list[int]] = {}
        self._found: dict[str, Found] = {}
        self._parents: dict[str, tuple[int, int]] = {}
        self._of_parents: frozenset[int] = frozenset()
        self._pids: dict[str, tuple[int, int]] = {}
        self._tables: dict[str, tuple[int, int]] = {}
        self._owners: dict[int, str] = {}
        self._network, self._devices, self._triggers = network, devices, triggers
        self._epoll = select.epoll()
        self._retired = Retired(self._epoll)
        triggers.attach(self._epoll, self._retired)
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._waker_read, self._waker_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._waker_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def watch_group(self, name: str, group: str) -> bool:
        """Watch a container's cgroup directories; what is watched already costs nothing.

        True when they are watched anew: they may have changed since they were looked at.
        """
        with self._lock:
            found = tuple((each, _inode(each)) for each in self._homes.directories(group))
            known = self._found.get(name)
            if known == found and all(inode for _, inode in found):
                return False  # those above have not been made anew, either
            parents = {each: _inode(each) for each in {os.path.dirname(path) for path, _ in found}}
            if known == found and all(
                self._parents.get(each, (0, 0))[0] == parents[each] for each in parents
            ):
                return False
            self._unwatch(name)
            self._watch_parents(parents)
            self._watch_directories(name, found)
            return True

    def watch_init(self, name: str, pid: int) -> None:
        """Watch for the end of a container's init, instead of one that was watched before; 0: of none."""
        with self._lock:
            known = self._pids.get(name)
            if known and known[0] != pid:
                self._drop(self._pids, name)
            if pid and name not in self._pids:
                self._watch_pid(name, pid)

    def watch_mounts(self, name: str, pid: int) -> bool:
        """Watch the mount table of a container's init, instead of one that was watched before; 0: of none.

        True when it is watched anew: it may have changed since it was looked at.
        """
        with self._lock:
            known = self._tables.get(name)
            if known and known[0] == pid:
                return False
            self._drop(self._tables, name)
            return bool(pid) and self._watch_table(name, pid)

    def watch_host_mounts(self, name: str) -> bool:
        """The mount table that masu itself sees, likewise."""
        return self.watch_mounts(name, os.getpid())

    def watch_network(self, name: str, where: str | None, links: Collection[str]) -> bool:
        """What changes in the container's network namespace, and on these links of the host."""
        return self._network.watch(name, where, links, self._epoll)

    def watch_firewall(self, name: str) -> bool:
        return self._network.watch_firewall(name, self._epoll)

    def watch_devices(self, name: str, *, wanted: bool) -> bool:
        """What the host's devices do, for whoever wants one."""
        return self._devices.watch(name, self._epoll, wanted=wanted)

    def untrack(self, name: str) -> None:
        self._network.forget(name)
        self._devices.forget(name)
        with self._lock:
            self._unwatch(name)
            self._drop(self._pids, name)
            self._drop(self._tables, name)
        self._inits.release(name)

    def close(self) -> None:
        os.write(self._waker_write, b"x")
        self._thread.join(2)
        self._network.close()
        self._devices.close()
        self._triggers.close()
        with self._lock:
            for kept in (self._pids, self._tables):
                for name in list(kept):
                    self._drop(kept, name)
        self._retired.close()
        self._epoll.close()
        for descriptor in (self._inotify, self._waker_read, self._waker_write):
            os.close(descriptor)

    def _watch_directories(self, name: str, found: Found) -> None:
        watches = [watch for path, _ in found if (watch := self._add(path)) >= 0]
        self._names.update(dict.fromkeys(watches, name))
        self._watches[name], self._found[name] = watches, found

    def _watch_parents(self, inodes: Mapping[str, int]) -> None:
        """cgroupfs does not tell of a directory's own end: if it was made anew, the watch is of the old one."""
        for path, inode in inodes.items():
            before, old = self._parents.get(path, (0, -1))
            if before == inode:
                continue
            if old >= 0 and old not in self._names:
                self._remove_watch(self._inotify, old)
            self._parents[path] = (inode, self._add(path))
            self._of_parents = frozenset(watch for _, watch in self._parents.values())

    def _add(self, directory: str) -> int:
        """-1: it is not there, or the host has no watch left, which is told once; the resync goes on."""
        watch: int = self._add_watch(self._inotify, os.fsencode(directory), MASK)
        if watch < 0 and ctypes.get_errno() == errno.ENOSPC and not self._blind:
            self._blind = True
            self._complain(
                "the host has no inotify watch left: drift is found by the resync alone;"
                " raise fs.inotify.max_user_watches"
            )
        return watch

    def _watch_pid(self, name: str, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            self._nudge(name)
            return
        self._inits.hold(name, pid, descriptor)
        self._pids[name] = (pid, descriptor)
        self._owners[descriptor] = name
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)

    def _watch_table(self, name: str, pid: int) -> bool:
        """proc_pid_mounts(5): the file polls as exceptional after a change since it was opened or polled."""
        try:
            descriptor = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # it has ended, and its pidfd tells that
        self._tables[name] = (pid, descriptor)
        self._owners[descriptor] = name
        self._epoll.register(descriptor, CHANGED)
        return True

    def _drop(self, kept: dict[str, tuple[int, int]], name: str) -> None:
        known = kept.pop(name, None)
        if known:
            self._owners.pop(known[1], None)
            self._retired.add(known[1])

    def _run(self) -> None:
        while True:
            self._retired.close_all()
            for descriptor, events in self._epoll.poll():
                if descriptor == self._waker_read:
                    return
                if descriptor == self._inotify:
                    self._drain()
                elif self._triggers.has(descriptor):
                    self._triggers.drain(descriptor, events)
                else:
                    for name in self._concerned(descriptor):
                        self._nudge(name)

    def _concerned(self, descriptor: int) -> Collection[str]:
        """Whom to look at, now that something waits there."""
        if self._devices.has(descriptor):
            return self._devices.drain()
        if self._network.has(descriptor):
            return self._network.drain(descriptor)
        name = self._owners.get(descriptor)
        return (name,) if name else ()

    def _drain(self) -> None:
        try:
            data = os.read(self._inotify, 65536)
        except BlockingIOError:
            return
        names: set[str] = set()
        counted: set[str] = set()
        for watch, mask, file in _events(data):
            if mask & IN_Q_OVERFLOW:
                self._overflow()
            elif mask & IN_DELETE:
                self._lost_child(watch, file.decode(errors="replace"), names)
            elif file == COUNTED_FILE:
                counted.update(self._whose(watch))
            elif file not in QUIET_FILES:
                names.update(self._whose(watch))
                self._end_of(watch, mask)
        for name in names:
            self._nudge(name)
        for name in counted:
            self._triggers.moved(name)

    def _whose(self, watch: int) -> tuple[str, ...]:
        name = self._names.get(watch)
        return (name,) if name else ()

    def _end_of(self, watch: int, mask: int) -> None:
        """A directory's own watch has ended, or is about to."""
        if mask & (IN_IGNORED | IN_DELETE_SELF):
            for name in self._whose(watch):
                self._forget_watches(name)

    def _lost_child(self, watch: int, child: str, names: set[str]) -> None:
        """cgroupfs does not tell of a directory's own end, only its parent's watch does."""
        name = key_of_directory(child)
        if name in self._watches and watch in self._of_parents:
            names.add(name)
            self._forget_watches(name)

    def _forget_watches(self, name: str) -> None:
        """A directory vanished: all are watched anew the next time the container is tracked."""
        with self._lock:
            self._unwatch(name)

    def _unwatch(self, name: str) -> None:
        """A directory goes on being watched for what is in it."""
        self._found.pop(name, None)
        for watch in self._watches.pop(name, ()):
            self._names.pop(watch, None)
            if watch not in self._of_parents:
                self._remove_watch(self._inotify, watch)


def _inode(path: str) -> int:
    """0: it is not there."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(watch, mask, file) of each: inotify(7)."""
    offset = 0
    while offset < len(data):
        watch, mask, _, length = EVENT.unpack_from(data, offset)
        offset += EVENT.size + length
        yield watch, mask, data[offset - length : offset].rstrip(b"\0")
