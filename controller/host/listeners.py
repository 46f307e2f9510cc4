"""Who listens on this host's own addresses, asked of the kernel without walking its connections.

Sources: sock_diag(7), linux/inet_diag.h.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Final

from controller.errors import StepFailed
from controller.host.netlink import NETLINK_SOCK_DIAG, Netlink, attributes, messages
from controller.model.firewall import Listener, Protocol

_SOCK_DIAG_BY_FAMILY: Final = 20
_PROTOCOLS: Final[tuple[tuple[Protocol, int, int], ...]] = (
    ("tcp", socket.IPPROTO_TCP, 1 << 10),  # TCP_LISTEN
    ("udp", socket.IPPROTO_UDP, 1 << 7),  # TCP_CLOSE: bound, and not connected
)
_QUESTION: Final = struct.Struct("=BBBxI48x")
_ANSWER: Final = struct.Struct("=BBxx2s2x16s")
_ANSWER_SIZE: Final = 72
_SKV6ONLY: Final = 11


class Listeners:
    """Of the network namespace of the calling thread. Stateless."""

    def all(self) -> frozenset[Listener]:
        """Read-only. Where the kernel cannot tell (no inet_diag): none."""
        found: set[Listener] = set()
        with contextlib.closing(Netlink(protocol=NETLINK_SOCK_DIAG)) as asked:
            for protocol, number, states in _PROTOCOLS:
                for family in (socket.AF_INET, socket.AF_INET6):
                    found.update(_ask(asked, protocol, _QUESTION.pack(family, number, 0, states)))
        return frozenset(found)


def _ask(asked: Netlink, protocol: Protocol, question: bytes) -> Iterator[Listener]:
    try:
        data = asked.dump(_SOCK_DIAG_BY_FAMILY, question)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
            return
        raise StepFailed(
            f"asking who listens on this host: {error.strerror}", errno=error.errno or 0
        ) from error
    for _, start, end in messages(data):
        family, _, port, address = _ANSWER.unpack_from(data, start)
        text = ipaddress.ip_address(address if family == socket.AF_INET6 else address[:4])
        if isinstance(text, ipaddress.IPv6Address) and text.ipv4_mapped:
            text = text.ipv4_mapped  # as Java asks for an address of IPv4
        v6 = text.version == 6
        alone = dict(attributes(data, start + _ANSWER_SIZE, end)).get(_SKV6ONLY, b"\0")[:1] != b"\0"
        versions = frozenset({6} if v6 and (alone or not text.is_unspecified) else {4, 6} if v6 else {4})
        yield Listener(
            protocol, "" if text.is_unspecified else str(text), int.from_bytes(port, "big"), versions
        )
