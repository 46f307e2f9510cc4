"""Nudges from the kernel when a device of the host comes, goes, or gets a driver: uevents, without udev.

Sources: lib/kobject_uevent.c; netlink(7), NETLINK_KOBJECT_UEVENT. Group 1 is the kernel's, 2 udev's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Final

_PROTOCOL: Final = 15  # NETLINK_KOBJECT_UEVENT, for which Python has no name
_KERNEL_GROUP: Final = 1
_BUFFER: Final = 1 << 20
_LARGEST: Final = 1 << 14
_KERNEL: Final = 0
"""The port of whoever sent it: anybody with the right may speak in that group."""
_DRIVER: Final = (b"bind@", b"unbind@")


class DeviceWatch:
    """Thread-safe. The socket is opened when the first container wants a device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._names: set[str] = set()

    def watch(self, name: str, epoll: select.epoll, *, wanted: bool) -> bool:
        """True when it is watched anew: something may have come or gone since it was looked at."""
        with self._lock:
            if not wanted:
                self._names.discard(name)
                return False
            fresh = name not in self._names
            if self._socket is None:
                self._socket = _listening()
                epoll.register(self._socket.fileno(), select.EPOLLIN)
            self._names.add(name)
            return fresh

    def forget(self, name: str) -> None:
        with self._lock:
            self._names.discard(name)

    def has(self, descriptor: int) -> bool:
        return self._socket is not None and self._socket.fileno() == descriptor

    def drain(self) -> frozenset[str]:
        """Whom to look at, after what has been heard. When too much was said at once: everybody."""
        heard = False
        with self._lock:
            try:
                while self._socket is not None:
                    text, sender = self._socket.recvfrom(_LARGEST)
                    heard = heard or (sender[0] == _KERNEL and _concerns_nodes(text))
            except BlockingIOError:
                pass
            except OSError:
                heard = True
            return frozenset(self._names) if heard else frozenset()

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()


def _listening() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_NETLINK, kind, _PROTOCOL)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    opened.bind((0, _KERNEL_GROUP))
    return opened


def _concerns_nodes(text: bytes) -> bool:
    """`ACTION@PATH`, then KEY=VALUE, with zero bytes between: with a MAJOR where the device has a node."""
    return b"\0MAJOR=" in text or text.startswith(_DRIVER)
