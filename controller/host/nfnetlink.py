"""What nftables says without a process: its generation, whether a table is there, what changes.

Read-only. Sources: netlink(7), linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from controller.errors import NotPermitted
from controller.frozen import dataclass
from controller.host.netlink import NLM_F_REQUEST, NLMSG_ERROR, attributes, text
from controller.host.text import failed

INET: Final = 1
BRIDGE: Final = 7
FAMILIES: Final = {"inet": INET, "bridge": BRIDGE}

_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8
_GETTABLE: Final = _SUBSYSTEM | 1
_NEWGEN: Final = _SUBSYSTEM | 15
_GETGEN: Final = _SUBSYSTEM | 16
_GROUP: Final = 7
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_FIRST_ATTRIBUTE: Final = 1
"""Of a generation its number, of everything else the name of its table."""
_PROCESS: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_FAMILY: Final = struct.Struct("!BBH")
_NUMBER: Final = struct.Struct("!I")
_ERRNO: Final = struct.Struct("=i")
_RECEIVE: Final = 1 << 17
_BUFFER: Final = 1 << 20
_PATIENCE_S: Final = 2.0
_ABSENT: Final = frozenset(
    {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT}
)
"""A kernel without netfilter, without nftables, without this family of tables; a table that is not there."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Something in a table of that name was made, changed or deleted."""

    family: int
    table: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The end of a transaction; `pid` made it, in the host's numbers."""

    pid: int


def generation() -> int | None:
    """Read-only. A number that changes with every change of any table of this namespace; None: no nftables."""
    answer = _ask(_GETGEN, 0, b"")
    if answer is None:
        return None
    found = dict(attributes(answer, _HEADER.size + _FAMILY.size, len(answer)))
    return int.from_bytes(found.get(_FIRST_ATTRIBUTE, b""), "big")


def families_of(table: str) -> tuple[str, ...]:
    """Read-only. The families in which a table of that name is there."""
    name = table.encode() + b"\0"
    padded = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name), _FIRST_ATTRIBUTE) + name + bytes(-len(name) % 4)
    return tuple(word for word, family in FAMILIES.items() if _ask(_GETTABLE, family, padded) is not None)


def subscribe() -> int:
    """A descriptor that is readable when a table of this network namespace has changed; for `read_events`."""
    events = _open()
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    events.bind((0, 0))  # without a port of its own it would hear nothing (af_netlink.c, do_one_broadcast)
    events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
    events.setblocking(False)
    return events.detach()


def read_events(descriptor: int) -> Iterator[Touched | Committed]:
    """Read everything that waits. Raises OSError ENOBUFS when some was lost; what follows is still to be read."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER, descriptor)
    try:
        while True:
            try:
                data, _, flags, _ = events.recvmsg(_RECEIVE)
            except BlockingIOError:
                return
            if flags & socket.MSG_TRUNC:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            yield from _events(data)
    finally:
        events.detach()


def _events(data: bytes) -> Iterator[Touched | Committed]:
    start = 0
    while start + _HEADER.size + _FAMILY.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size:
            return
        end = start + length
        found = dict(attributes(data, start + _HEADER.size + _FAMILY.size, end))
        if kind == _NEWGEN:
            yield Committed(int.from_bytes(found.get(_PROCESS, b""), "big"))
        elif kind & ~0xFF == _SUBSYSTEM:
            yield Touched(data[start + _HEADER.size], text(found.get(_FIRST_ATTRIBUTE, b"")))
        start = (end + 3) & ~3


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)


def _ask(kind: int, family: int, body: bytes) -> bytes | None:
    """The whole message that answers; None where there is nothing to answer. Raises NotPermitted, StepFailed."""
    try:
        with _open() as asked:
            asked.settimeout(_PATIENCE_S)
            length = _HEADER.size + _FAMILY.size + len(body)
            asked.send(_HEADER.pack(length, kind, NLM_F_REQUEST, 1, 0) + _FAMILY.pack(family, 0, 0) + body)
            answer = asked.recv(_RECEIVE)
        _check(answer)
    except PermissionError as error:
        raise NotPermitted("cannot ask nftables: not permitted; masu must run as root") from error
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise failed(error, "asking", "nftables") from error
    return answer


def _check(answer: bytes) -> None:
    if _HEADER.unpack_from(answer)[1] == NLMSG_ERROR:
        number = -_ERRNO.unpack_from(answer, _HEADER.size)[0]
        raise OSError(number, os.strerror(number))
