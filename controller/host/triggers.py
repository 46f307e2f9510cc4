"""The Triggers port: PSI triggers, and eventfds of cgroup v1, in the epoll of `watch`.

Each wakes somebody once and is then silent until it is armed again: v1's pressure levels come in hundreds.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Collection, Mapping

from controller.frozen import dataclass
from controller.host.cgroups.homes import Homes
from controller.host.retired import Retired
from controller.model.notice import Watch

SOFT_LIMIT = "memory.soft_limit_in_bytes"
EDGES = frozenset({"trigger", "level"})
"""What is past is past: a sign of it, kept until somebody looks again, would be a lie by then."""


@dataclass(frozen=True, slots=True)
class Armed:
    """`inode`: of the group's directory, which tells it from a later one. `argument`: what was asked for."""

    path: str
    descriptor: int
    inode: int
    argument: str
    events: int


class TriggerFiles:
    """Thread-safe. `woken(name, watch)` is called from the watching thread and must be quick; no watch: a
    counter has moved."""

    def __init__(self, homes: Homes, woken: Callable[[str, Watch | None], None]) -> None:
        self._homes, self._woken = homes, woken
        self._lock = threading.Lock()
        self._armed: dict[str, dict[Watch, Armed]] = {}
        self._owners: dict[int, tuple[str, Watch]] = {}
        self._epoll: select.epoll | None = None
        self._retired: Retired | None = None

    def attach(self, epoll: select.epoll, retired: Retired) -> None:
        """Where the descriptors are waited for, and where they go: what is told to one must not be another's."""
        self._epoll, self._retired = epoll, retired

    def arm(self, name: str, group: str, wanted: Collection[Watch]) -> Mapping[Watch, str]:
        """A group that is not there has nothing to watch, and that is no failure: it will be looked at again."""
        refused: dict[Watch, str] = {}
        with self._lock:
            armed = self._armed.setdefault(name, {})
            for watch in set(armed) - set(wanted):
                self._drop(name, watch)
            for watch in (each for each in wanted if each.how != "counter"):
                try:
                    self._arm(name, group, watch)
                except OSError as error:
                    refused[watch] = f"{watch.file}: {os.strerror(error.errno or 0)} (errno {error.errno})"
        return refused

    def arm_again(self, name: str, watch: Watch) -> None:
        with self._lock:
            armed = self._armed.get(name, {}).get(watch)
            if armed is None:
                return
            if watch.how in EDGES:
                _pass_over(armed)
            self._wait_for(armed)

    def disarm(self, name: str) -> None:
        with self._lock:
            for watch in list(self._armed.get(name, ())):
                self._drop(name, watch)
            self._armed.pop(name, None)

    def moved(self, name: str) -> None:
        """A counter's file says so."""
        self._woken(name, None)

    def has(self, descriptor: int) -> bool:
        with self._lock:
            return descriptor in self._owners

    def drain(self, descriptor: int, events: int) -> None:
        """After the watching thread was woken. A trigger whose group has gone is an error for ever."""
        with self._lock:
            name, watch = self._owners.get(descriptor, ("", None))
            told = watch is not None and self._is_told(name, watch, events)
        if told:
            self._woken(name, watch)

    def _is_told(self, name: str, watch: Watch, events: int) -> bool:
        """Whether anybody is to be woken. v1 also tells when the group goes, and of thresholds on the way down."""
        armed = self._armed[name][watch]
        if watch.how == "trigger":
            if not events & (select.EPOLLPRI | select.EPOLLERR):
                return False  # of a socket that had the number
            gone, times = bool(events & select.EPOLLERR), 1
        else:
            times = _empty(armed.descriptor)
            gone = _inode(os.path.dirname(armed.path)) != armed.inode
        if gone:
            self._drop(name, watch)
            return False
        if not times:
            return False
        if watch.how == "threshold" and times < 2 and not _above(armed):
            self._wait_for(armed)
            return False
        return True

    def close(self) -> None:
        for name in list(self._armed):
            self.disarm(name)

    def _arm(self, name: str, group: str, watch: Watch) -> None:
        hierarchy = self._homes.facts.hierarchy(watch.subsystem)
        directory = self._homes.locate(hierarchy, group) if hierarchy else ""
        inode = _inode(directory)
        argument = _argument(directory, watch) if inode else ""
        known = self._armed[name].get(watch)
        if known and (known.inode, known.argument) == (inode, argument):
            return
        self._drop(name, watch)
        if not inode or self._epoll is None:
            return
        path = f"{directory}/{watch.file}"
        if watch.how == "trigger":
            descriptor, events = _trigger(path, argument), select.EPOLLPRI
        else:
            descriptor, events = _eventfd(directory, watch.file, argument), select.EPOLLIN
        self._armed[name][watch] = Armed(path, descriptor, inode, argument, events)
        self._owners[descriptor] = (name, watch)
        self._epoll.register(descriptor, events | select.EPOLLONESHOT)

    def _wait_for(self, armed: Armed) -> None:
        if self._epoll:
            self._epoll.modify(armed.descriptor, armed.events | select.EPOLLONESHOT)

    def _drop(self, name: str, watch: Watch) -> None:
        known = self._armed[name].pop(watch, None)
        if known and self._retired:
            self._owners.pop(known.descriptor, None)
            self._retired.add(known.descriptor)


def _inode(directory: str) -> int:
    """0: it is not there."""
    try:
        return os.stat(directory).st_ino
    except FileNotFoundError:
        return 0


def _argument(directory: str, watch: Watch) -> str:
    """A threshold is where the soft limit is now."""
    return str(_number(f"{directory}/{SOFT_LIMIT}")) if watch.how == "threshold" else watch.argument


def _trigger(path: str, argument: str) -> int:
    """accounting/psi.rst: one for each descriptor, for as long as that is open."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, argument.encode() + b"\0")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _eventfd(directory: str, file: str, argument: str) -> int:
    """cgroup-v1/memory.rst: "<eventfd> <file> <argument>" into cgroup.event_control."""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        source = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with open(f"{directory}/cgroup.event_control", "w") as control:
                control.write(f"{descriptor} {source} {argument}".strip())
        finally:
            os.close(source)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _pass_over(armed: Armed) -> None:
    """A trigger tells each event to one poll alone."""
    if armed.events == select.EPOLLIN:
        _empty(armed.descriptor)
        return
    poll = select.poll()
    poll.register(armed.descriptor, select.POLLPRI)
    poll.poll(0)


def _above(armed: Armed) -> bool:
    try:
        return _number(armed.path) >= int(armed.argument)
    except OSError:
        return True  # nobody knows; better told for nothing


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())


def _empty(descriptor: int) -> int:
    """How often it was told."""
    with contextlib.suppress(BlockingIOError):
        return os.eventfd_read(descriptor)
    return 0
