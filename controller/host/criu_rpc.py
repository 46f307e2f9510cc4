"""CRIU's own protocol, as far as masu speaks it: `criu swrk`, one request over one seqpacket socket.

The command line would do, but it has no way to say "everything is frozen now, go on when you are ready" other than
a script, which CRIU would have to start while the processes stand still.
Sources: criu/images/rpc.proto, criu/images/stats.proto, criu/include/magic.h; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from controller.frozen import dataclass

DUMP: Final = 1
NOTIFY: Final = 6
SINGLE_PRE_DUMP: Final = 13
IGNORE_CGROUPS: Final = 0
NFTABLES: Final = 2
SKIP_LOCK: Final = 3
MAX_MESSAGE: Final = 65_536
OPTIONS: Final = {  # of criu_opts
    "images_dir_fd": 1,
    "pid": 2,
    "leave_running": 3,
    "tcp_established": 5,
    "file_locks": 8,
    "log_level": 9,
    "log_file": 10,
    "notify_scripts": 12,
    "parent_img": 14,
    "track_mem": 15,
    "link_remap": 18,
    "manage_cgroups_mode": 34,
    "ghost_limit": 35,
    "external": 37,
    "timeout": 45,
    "tcp_close": 52,
    "network_lock": 64,
}
LOOK_MS: Final = 50
_STATS_HEAD: Final = 12
"""Two magic numbers and a size."""

Value = int | str | bytes
Fields = Mapping[int, tuple[int | bytes, ...]]


class Broken(Exception):
    """CRIU ended without an answer, or with one that is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`success`, and CRIU's words when there is none; `failure`: of the caller's own work."""

    success: bool
    message: str
    failure: Exception | None


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """Pure. Numbers as varints, everything else with its length."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | 2) + _varint(len(raw)) + raw)
    return b"".join(parts)


def decode(data: bytes) -> Fields:
    """Pure. Field number → every value it has. Raises ValueError when it is torn or of an unknown shape."""
    found: dict[int, tuple[int | bytes, ...]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _read_varint(data, at)
        elif key & 7 == 2:  # a length follows
            size, at = _read_varint(data, at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise ValueError("a message ends too early")
        else:
            raise ValueError(f"wire type {key & 7} is not used by CRIU")
        found[key >> 3] = (*found.get(key >> 3, ()), value)
    return found


def _varint(value: int) -> bytes:
    raw = bytearray()
    while value > 0x7F:  # seven bits at a time
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*raw, value))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("a number ends too early")


def request(kind: int, options: Iterable[tuple[str, Value]]) -> bytes:
    """Pure. A criu_req of this type with these criu_opts, by name."""
    return encode([(1, kind), (2, encode((OPTIONS[name], value) for name, value in options))])


def converse(
    sock: socket.socket,
    asked: bytes,
    timeout_s: float,
    frozen: Callable[[], None],
    silent: Callable[[], None],
) -> Answer:
    """Ask, and answer CRIU's own questions until it is done.

    `frozen` is called at post-dump: the image is complete and everything still stands still. When it fails, CRIU
    takes the dump for a failure and lets everybody go on. The time that it takes is not counted.
    `silent` is called again and again as long as it says nothing.
    Raises TimeoutError, Broken, and what `silent` raises.
    """
    deadline = time.monotonic() + timeout_s
    failure: Exception | None = None
    _send(sock, asked)
    while number(answer := _receive(sock, deadline, silent), 1) == NOTIFY:
        if _script(answer) == b"post-dump":
            before = time.monotonic()
            try:
                frozen()
            except Exception as error:  # noqa: BLE001  whatever it is, CRIU has to hear of it first
                failure = error
            deadline += time.monotonic() - before
        _send(sock, encode([(1, NOTIFY), (3, int(failure is None))]))
    return Answer(bool(number(answer, 2)), part(answer, 9).decode(errors="replace"), failure)


def stats(image: bytes) -> Fields:
    """Pure. The dump_stats_entry in a `stats-dump` file; empty when there is none."""
    size = int.from_bytes(image[8:_STATS_HEAD], "little")
    entry = decode(image[_STATS_HEAD : _STATS_HEAD + size])
    return decode(part(entry, 1))


def number(fields: Fields, field: int) -> int:
    """Pure. 0 where it is not there."""
    value = fields.get(field, (0,))[-1]
    return value if isinstance(value, int) else 0


def part(fields: Fields, field: int) -> bytes:
    """Pure. Empty where it is not there."""
    value = fields.get(field, (b"",))[-1]
    return value if isinstance(value, bytes) else b""


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError as error:
        raise Broken(str(error)) from error


def _receive(sock: socket.socket, deadline: float, silent: Callable[[], None]) -> Fields:
    ready = select.poll()
    ready.register(sock, select.POLLIN)
    while not ready.poll(LOOK_MS):
        if time.monotonic() > deadline:
            raise TimeoutError
        silent()
    try:
        data = sock.recv(MAX_MESSAGE)
        if not data:
            raise Broken("it ended without an answer")
        return decode(data)
    except (OSError, ValueError) as error:
        raise Broken(str(error)) from error


def _script(answer: Fields) -> bytes:
    return part(decode(part(answer, 5)), 1)
