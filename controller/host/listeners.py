"""Who listens on the host: what a published port would take connections away from.

Read-only. Source: proc_net_tcp.rst, proc(5).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

from controller.host.text import read_text

LISTEN: Final = "0A"
FILES: Final = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_WORD: Final = 4


def listening() -> frozenset[tuple[str, str, int]]:
    """Read-only. (protocol, address, port) of every listening TCP and every bound UDP socket of masu's own network
    namespace; every address of a family is "0.0.0.0" or "::", and the latter may be meant for both families.
    """
    return frozenset(
        (protocol, address, port)
        for protocol, file in FILES
        for address, port in _sockets(file, LISTEN if protocol == "tcp" else "")
    )


def _sockets(file: str, state: str) -> Iterator[tuple[str, int]]:
    """Those in that state; empty: in any."""
    for line in (read_text(f"/proc/thread-self/net/{file}") or "").splitlines()[1:]:
        fields = line.split(maxsplit=4)
        if len(fields) > 3 and state in {"", fields[3]}:
            address, _, port = fields[1].rpartition(":")
            yield _address(address), int(port, 16)


def _address(digits: str) -> str:
    """Words of 32 bits as the processor has them in memory."""
    packed = bytes.fromhex(digits)
    if sys.byteorder == "little":
        words = (packed[start : start + _WORD] for start in range(0, len(packed), _WORD))
        packed = b"".join(word[::-1] for word in words)
    found = ip_address(packed)
    return str((found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found)
