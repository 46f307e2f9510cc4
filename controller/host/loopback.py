"""The loopback link of the network namespace that the calling thread is in; netdevice(7)."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ: Final = struct.Struct("16sH22x")
"""struct ifreq: 40 bytes, a name of 16, then a union."""


def is_up() -> bool:
    return bool(_flags() & _IFF_UP)


def set_up() -> None:
    _flags(_flags() | _IFF_UP)


def _flags(wanted: int | None = None) -> int:
    """Flags of lo, after setting them where `wanted` is given."""
    request = _SIOCGIFFLAGS if wanted is None else _SIOCSIFFLAGS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        answer = fcntl.ioctl(end, request, _IFREQ.pack(b"lo", wanted or 0))
    flags: int = _IFREQ.unpack(answer)[1]
    return flags
