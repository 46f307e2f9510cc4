"""Network namespaces that belong to masu, not to a process: each is bound to a file, as `ip netns` does it.

They outlive the container's processes and masu's own, and with them their links and addresses. Sources:
namespaces(7), ip-netns(8).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from controller.errors import StepFailed
from controller.host import loopback, syscalls
from controller.host.netlink import Netlink
from controller.host.syscalls import CLONE_NEWNET, MS_BIND
from controller.host.text import failed, make_private, read_text, remove_file
from controller.host.visits import Trip, Visits
from controller.model.launch import Init

T = TypeVar("T")

_OWN: Final = "/proc/thread-self/ns/net"
_GROUPS: Final = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400 | 1 << 23 | 1 << 24
"""RTMGRP_LINK, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_NETCONF (rtnetlink.h)."""
_DETECTION: Final = "/proc/sys/net/ipv6/conf/default/accept_dad"
"""Whether others are asked before an IPv6 address is used, which takes seconds; masu gives no address twice."""
_PROMOTION: Final = "/proc/sys/net/ipv4/conf/all/promote_secondaries"
"""Whether an address outlives another one of its subnet that was there first: else a change interrupts both."""
_LOW_PORTS: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class KeptNamespaces:
    """The driver of `Namespaces`, and the sockets into them. The empty name is masu's own namespace."""

    def __init__(self, directory: str, visits: Visits) -> None:
        self._directory, self._visits = directory, visits
        self._lock = threading.Lock()
        self._sockets: dict[str, tuple[int, Netlink]] = {}
        self._device = os.stat(_OWN).st_dev

    def path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def names(self) -> frozenset[str]:
        """Also of what is half made or half removed."""
        try:
            return frozenset(os.listdir(self._directory))
        except FileNotFoundError:
            return frozenset()

    def inode(self, name: str) -> int:
        """The namespace's number, as in /proc/PID/ns/net; 0 when there is none, or only its file."""
        try:
            found = os.stat(self.path(name))
        except OSError:
            return 0
        return found.st_ino if found.st_dev == self._device else 0

    def make(self, name: str, *, low_ports: bool) -> None:
        """A new namespace; `low_ports`: whoever is in it may listen below 1024, whatever its user namespace."""

        def work(trip: Trip) -> Netlink:
            trip.leave_for_new(CLONE_NEWNET)
            loopback.set_up()
            if os.path.exists(_DETECTION):
                _write(_DETECTION, "0")
            _write(_PROMOTION, "1")
            if low_ports:
                _write(_LOW_PORTS, "0")
            syscalls.mount(_OWN, self.path(name), MS_BIND)
            return Netlink()

        opened = self._bind(name, f"making the network namespace of {name}", work)
        self._close(name)
        with self._lock:
            self._sockets[name] = self.inode(name), opened

    def keep(self, name: str, init: Init) -> None:
        """Bind the namespace that a running container has made for itself."""

        def work(trip: Trip) -> None:
            trip.enter(init.pid, CLONE_NEWNET, init.start_time)
            if not trip.abroad(CLONE_NEWNET):
                raise StepFailed(f"refused: {name} is in the host's network namespace")
            syscalls.mount(_OWN, self.path(name), MS_BIND)

        self._bind(name, f"keeping the network namespace of {name}", work)

    def remove(self, name: str) -> None:
        """Let go of it: it ends with the last process in it. One that is gone is fine."""
        self._close(name)
        try:
            while self.inode(name):
                syscalls.detach_mount(self.path(name))
        except OSError as error:
            raise failed(error, "unmounting", self.path(name)) from error
        remove_file(self.path(name))

    def setting(self, name: str, path: str) -> str | None:
        """A file below /proc/sys/net as seen in there; None when there is no such file, or no namespace."""
        return self.visit(name, f"reading {path}", lambda _: read_text(path)) if self._is(name) else None

    def set_setting(self, name: str, path: str, value: str) -> None:
        self.visit(name, f"writing {value!r} to {path}", lambda _: _write(path, value))

    def visit(self, name: str, doing: str, work: Callable[[Trip], T]) -> T:
        """The result of work done inside. Raises StepFailed, also when there is no such namespace."""

        def there(trip: Trip) -> T:
            if name:
                with self.opened(name) as descriptor:
                    trip.enter_kept(descriptor, CLONE_NEWNET)
            return work(trip)

        where = f"in the network namespace of {name}: {doing}" if name else doing
        try:
            return self._visits.call(where, there)
        except OSError as error:
            raise failed(error, where, self.path(name) if name else "") from error

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A descriptor of the namespace, for setns(2) and rtnetlink. Raises OSError."""
        descriptor = os.open(self.path(name) if name else _OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def socket(self, name: str) -> Netlink | None:
        """A socket that stays in there, opened once; None when there is no such namespace."""
        inode = self.inode(name) if name else -1
        if not inode:
            self._close(name)
            return None
        with self._lock:
            known = self._sockets.get(name)
        if known and known[0] == inode:
            return known[1]
        self._close(name)
        opened = self.visit(name, "opening a netlink socket", lambda _: Netlink())
        with self._lock:
            self._sockets[name] = inode, opened
        return opened

    def open_sockets(self, names: Iterable[str]) -> None:
        """For whoever is about to look at many: one turn of the thread that goes there, not one for each."""
        inodes = {name: inode for name in names if (inode := self.inode(name))}

        def work(trip: Trip) -> dict[str, Netlink]:
            opened = {}
            for name in inodes:
                with suppress(OSError), self.opened(name) as descriptor:
                    trip.enter_kept(descriptor, CLONE_NEWNET)
                    opened[name] = Netlink()
            return opened

        try:
            found = self.visit("", "opening netlink sockets", work)
        except StepFailed:  # asked for one by one, each says why
            return
        with self._lock:
            self._sockets.update({name: (inodes[name], opened) for name, opened in found.items()})

    def listen(self, name: str) -> Netlink | None:
        """A socket that hears of every change of links, addresses, routes and traffic control in there."""
        if name and not self.inode(name):
            return None
        return self.visit(name, "opening a netlink socket", lambda _: Netlink(_GROUPS))

    def is_own(self, port: int) -> bool:
        """Whether a change was made through one of the sockets here."""
        with self._lock:
            return any(port == opened.port for _, opened in self._sockets.values())

    def _is(self, name: str) -> bool:
        return not name or bool(self.inode(name))

    def _bind(self, name: str, doing: str, work: Callable[[Trip], T]) -> T:
        path = self.path(name)
        make_private(self._directory)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
            return self._visits.call(doing, work)
        except OSError as error:
            raise failed(error, doing, path) from error

    def _close(self, name: str) -> None:
        """An open socket keeps a namespace alive."""
        with self._lock:
            known = self._sockets.pop(name, None)
        if known:
            known[1].close()


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
