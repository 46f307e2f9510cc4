"""Unix sockets, with descriptors sent over them. What `socket` adds to `_socket` takes half a megabyte."""

from __future__ import annotations

import _socket
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Sequence
    from typing import Any

Socket = _socket.socket
CHUNK = 65536
INT = struct.calcsize("i")
DESCRIPTORS = 8
"""So many at once."""


def listen(path: str) -> Socket:
    if os.path.exists(path):
        os.unlink(path)
    listener = Socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    previous = os.umask(0o177)
    listener.bind(path)
    os.umask(previous)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def accept(listener: Socket) -> Socket:
    """Raises BlockingIOError when there is nobody any more."""
    listens: Any = listener  # which typing knows only by what `socket` makes of it
    descriptor, _ = listens._accept()  # noqa: SLF001
    return Socket(fileno=descriptor)


def user(sock: Socket) -> int:
    """Whose process is at the other end: unix(7)."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def receive(sock: Socket) -> tuple[bytes, list[int]]:
    room = _socket.CMSG_LEN(DESCRIPTORS * INT)
    data, messages, _, _ = sock.recvmsg(CHUNK, room, _socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, value in messages:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            count = len(value) // INT
            found.extend(struct.unpack(f"{count}i", value[: count * INT]))
    return data, found


def send(sock: Socket, text: bytes, descriptors: Sequence[int]) -> None:
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    sock.sendmsg([text], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
