"""One rtnetlink socket, and the little of its format that looking needs.

A socket stays in the network namespace in which it was opened, whichever thread uses it afterwards. Sources:
netlink(7), rtnetlink(7), linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_ECHO: Final = 0x8
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLM_F_DUMP_INTR: Final = 0x10
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NETLINK_SOCK_DIAG: Final = 4

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TIMEVAL: Final = struct.Struct("@ll")
_ERRNO: Final = struct.Struct("=i")
_INDEX_AT: Final = 4
RTM_DELROUTE, RTM_NEWNETCONF = 25, 80
_ROUTE_SIZE, _RTA_OIF = 12, 4
_NETCONF_INDEX_AT: Final = 8
"""A byte for the family, padded, then the attribute NETCONFA_IFINDEX, which comes first; its header has 4."""
_RECEIVE: Final = 1 << 17
_BUFFER: Final = 1 << 20
_ATTEMPTS: Final = 5

PATIENCE_S: Final = 5.0


class Refused(OSError):
    """The kernel's errno and, where it gives one, its own sentence about the cause."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(number, said or os.strerror(number))
        self.said = said


class Sockets(Protocol):
    """Network namespaces by the names of their containers; "" is the host's."""

    def socket(self, name: str) -> Netlink | None: ...

    def opened(self, name: str) -> AbstractContextManager[int]:
        """A descriptor of the namespace. Raises OSError."""
        ...


class Notice(NamedTuple):
    """What the kernel tells of a change: message type, the port of the socket that caused it, and the link's number
    (of a link, an address, a traffic control, a setting, a route that goes; elsewhere it means nothing)."""

    kind: int
    port: int
    link: int


class Netlink:
    """Thread-safe: one request at a time. Raises Refused, and TimeoutError when the kernel does not answer."""

    def __init__(self, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Opens in the calling thread's network namespace; `groups`: multicast groups to hear from, as bits."""
        self._lock = threading.Lock()
        self._sequence = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._option(option)
            self._socket.bind((0, groups))
            for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # Python's own would poll before every call
                self._socket.setsockopt(socket.SOL_SOCKET, side, _TIMEVAL.pack(int(PATIENCE_S), 0))
            if groups:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> bytes:
        """All messages that answer, one after the other, without sequence number and port: equal when nothing
        has changed."""
        for _ in range(_ATTEMPTS):
            found = self._dump(kind, body)
            if found is not None:
                return found
        raise Refused(errno.EAGAIN, "it changes faster than it can be read")

    def get(self, kind: int, body: bytes) -> bytes:
        """The one message that answers, in the form of `dump`. Raises Refused where there is none."""
        with self._lock:
            self._send(kind, NLM_F_REQUEST, body)
            while True:
                for found, _, sequence, start, end, data in _messages(self._receive()):
                    if sequence == self._sequence and found == NLMSG_ERROR:
                        _check(data, start, end)
                    elif sequence == self._sequence:
                        return _HEADER.pack(_HEADER.size + end - start, found, 0, 0, 0) + data[start:end]

    def echo(self, kind: int, body: bytes) -> bytes:
        """As `get`, for questions that the kernel answers with the echo of a notification: empty where it has
        nothing to tell."""
        answer = b""
        with self._lock:
            self._send(kind, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO, body)
            while True:
                for found, _, sequence, start, end, data in _messages(self._receive()):
                    if sequence == self._sequence and found == NLMSG_ERROR:
                        _check(data, start, end)
                        return answer
                    if sequence == self._sequence:
                        answer = _HEADER.pack(_HEADER.size + end - start, found, 0, 0, 0) + data[start:end]

    def request(self, kind: int, flags: int, body: bytes) -> None:
        """One change, acknowledged."""
        with self._lock:
            self._send(kind, flags | NLM_F_REQUEST | NLM_F_ACK, body)
            while True:
                for found, _, sequence, start, end, data in _messages(self._receive()):
                    if found == NLMSG_ERROR and sequence == self._sequence:
                        _check(data, start, end)
                        return

    def drain(self) -> list[Notice]:
        """Every notification that waits. OSError ENOBUFS: some were lost."""
        found: list[Notice] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return found
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, _, port = _HEADER.unpack_from(data, offset)
                found.append(Notice(kind, port, _link_of(kind, data, offset + _HEADER.size, offset + length)))
                offset += max(_aligned(length), _HEADER.size)

    def _option(self, option: int) -> None:
        try:
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:  # an older kernel: it says less, but means the same
                raise

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        message = _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body
        try:
            self._socket.send(message)
        except BlockingIOError as error:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except BlockingIOError as error:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error

    def _dump(self, kind: int, body: bytes) -> bytes | None:
        """None when the answer was interrupted by a change, and so is not one state of the world."""
        parts: list[bytes] = []
        interrupted = False
        with self._lock:
            self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            while True:
                for found, flags, sequence, start, end, data in _messages(self._receive()):
                    if sequence != self._sequence:
                        continue
                    interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                    if found == NLMSG_DONE:
                        _check_end(data, start, end)
                        return None if interrupted else b"".join(parts)
                    if found == NLMSG_ERROR:
                        _check(data, start, end)
                    parts.append(_HEADER.pack(_HEADER.size + end - start, found, 0, 0, 0))
                    parts.append(data[start:end])
                    parts.append(bytes(-(end - start) % 4))


def _link_of(kind: int, data: bytes, start: int, end: int) -> int:
    """The number of the link that a notification is about; 0 for one that says nothing of it."""
    if kind == RTM_DELROUTE:
        over = dict(attributes(data, start + _ROUTE_SIZE, end)).get(_RTA_OIF, b"")
        return int(_ERRNO.unpack(over)[0]) if len(over) == _ERRNO.size else 0
    at = start + (_NETCONF_INDEX_AT if kind == RTM_NEWNETCONF else _INDEX_AT)
    return int(_ERRNO.unpack_from(data, at)[0]) if at + _ERRNO.size <= end else 0


def _check_end(data: bytes, start: int, end: int) -> None:
    """What goes wrong in the middle of a dump is told with its end (af_netlink.c, netlink_dump_done)."""
    number = -_ERRNO.unpack_from(data, start)[0] if end - start >= _ERRNO.size else 0
    if number > 0:
        raise Refused(number, "")


def messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each message's body in what `Netlink.dump` returned."""
    for kind, _, _, start, end, _ in _messages(data):
        yield kind, start, end


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each attribute in that stretch."""
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)


def attribute(payload: bytes, kind: int) -> bytes:
    """The payload of the first attribute of that type in another's payload; empty when there is none."""
    return next((each for found, each in attributes(payload, 0, len(payload)) if found == kind), b"")


def text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode("utf-8", "replace")


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, offset + _HEADER.size, offset + length, data
        offset += _aligned(length)


def _check(data: bytes, start: int, end: int) -> None:
    """Of an acknowledgement: the errno, the header of the request alone (NETLINK_CAP_ACK), attributes."""
    number = -_ERRNO.unpack_from(data, start)[0]
    if number:
        rest = attributes(data, start + _ERRNO.size + _HEADER.size, end)
        raise Refused(number, next((text(each) for kind, each in rest if kind == NLMSGERR_ATTR_MSG), ""))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
