"""Nudges from rtnetlink and nftables: a socket in every container's network namespace, and two for the host's own.

A change that masu made itself through its own sockets nudges nobody.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Collection
from typing import Final

from controller.errors import MasuError
from controller.host import links_read
from controller.host.namespaces import KeptNamespaces
from controller.host.netlink import RTM_DELROUTE, RTM_NEWNETCONF, Netlink, Notice
from controller.host.nftables import NftablesFirewall

HOST: Final = ""
_OF_A_LINK: Final = frozenset({16, 17, 20, 21, RTM_DELROUTE, 36, 37, 40, 41, 44, 45})
"""RTM_NEW… and DEL… of LINK, ADDR, QDISC, TCLASS and TFILTER, and routes that go."""
_ALL_LINKS: Final = -1
"""NETCONFA_IFINDEX_ALL: of forwarding for the host as a whole."""


class NetworkWatch:
    """Thread-safe. Descriptors are registered with the epoll of whoever waits."""

    def __init__(self, namespaces: KeptNamespaces, firewall: NftablesFirewall) -> None:
        self._namespaces, self._firewall = namespaces, firewall
        self._rules = -1
        self._rules_for = ""
        self._lock = threading.Lock()
        self._sockets: dict[str, tuple[int, Netlink]] = {}
        self._owners: dict[int, str] = {}
        self._indices: dict[str, frozenset[int]] = {}

    def watch(self, name: str, where: str | None, links: Collection[str], epoll: select.epoll) -> bool:
        """See `Tracker.watch_network`."""
        with self._lock:
            fresh = self._listen(where, epoll) if where is not None else False
            if where is None:
                self._close(name)  # an open socket would keep its namespace alive
            if links:
                fresh |= self._listen(HOST, epoll)
            indices = frozenset(index for each in links if (index := self._index(each)))
            fresh |= indices != self._indices.get(name, frozenset())
            self._indices[name] = indices
            return fresh

    def watch_firewall(self, name: str, epoll: select.epoll) -> bool:
        """See `Tracker.watch_firewall`."""
        with self._lock:
            if self._rules >= 0:
                return False
            with contextlib.suppress(OSError):  # without nftables there is nothing to hear of
                self._rules, self._rules_for = self._firewall.subscribe(), name
                epoll.register(self._rules, select.EPOLLIN)
            return self._rules >= 0

    def forget(self, name: str) -> None:
        with self._lock:
            self._indices.pop(name, None)
            self._close(name)

    def has(self, descriptor: int) -> bool:
        return descriptor in self._owners or descriptor == self._rules

    def drain(self, descriptor: int) -> set[str]:
        """Whom to look at, after what has been heard there."""
        if descriptor == self._rules:
            return {self._rules_for} if self._firewall.drain(descriptor) else set()
        with self._lock:
            where = self._owners.get(descriptor)
            opened = self._sockets.get(where) if where is not None else None
            if where is None or opened is None:
                return set()
            try:
                notices = [each for each in opened[1].drain() if not self._namespaces.is_own(each.port)]
            except OSError:
                return set(self._indices) if where == HOST else {where}
            return self._concerned(notices) if where == HOST else {where} if notices else set()

    def close(self) -> None:
        with self._lock:
            for where in list(self._sockets):
                self._close(where)
            if self._rules >= 0:
                os.close(self._rules)
                self._rules = -1

    def _concerned(self, notices: list[Notice]) -> set[str]:
        everything = any(each.kind == RTM_NEWNETCONF and each.link == _ALL_LINKS for each in notices)
        found = {self._rules_for} if everything and self._rules_for else set()
        changed = {each.link for each in notices if each.kind in _OF_A_LINK}
        return found | {name for name, indices in self._indices.items() if indices & changed}

    def _listen(self, where: str, epoll: select.epoll) -> bool:
        """A namespace that was made anew needs a new socket."""
        inode = self._namespaces.inode(where) if where else -1
        known = self._sockets.get(where)
        if known and known[0] == inode:
            return False
        self._close(where)
        opened = self._namespaces.listen(where)
        if opened is None:
            return False
        self._sockets[where] = inode, opened
        self._owners[opened.fileno()] = where
        epoll.register(opened.fileno(), select.EPOLLIN)
        return True

    def _close(self, where: str) -> None:
        """Closing takes it out of the epoll."""
        known = self._sockets.pop(where, None)
        if known:
            self._owners.pop(known[1].fileno(), None)
            known[1].close()

    def _index(self, link: str) -> int:
        with contextlib.suppress(MasuError, OSError):
            opened = self._namespaces.socket(HOST)
            if opened is not None:
                found = links_read.links(opened.get(links_read.RTM_GETLINK, links_read.link_question(link)))
                return found[0].index if found else 0
        return 0
