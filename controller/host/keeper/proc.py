"""What the keeper asks /proc, and the small files it keeps."""

from __future__ import annotations

import fcntl
import json
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from typing import Any

PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
INFO = struct.Struct("QQ11Ii")


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when there is no such process."""
    text = read(f"/proc/{pid}/stat")
    return int(text[text.rindex(")") + 2 :].split()[19]) if text else 0


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: str, value: dict[str, Any]) -> None:
    temporary = path + ".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(descriptor, json.dumps(value).encode())
    os.close(descriptor)
    os.replace(temporary, path)


def reopen_pipe(pids: list[int], inode: int) -> int:
    """The read end of a pipe that one of these processes still has open; -1 when none has."""
    wanted = f"pipe:[{inode}]"
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                if os.readlink(path) == wanted:
                    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
    return -1


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that somebody else reaped, from its pidfd (Linux 6.15); None: not known."""
    buffer = bytearray(INFO.pack(PIDFD_INFO_EXIT, 0, *([0] * 11), 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = INFO.unpack(bytes(buffer))
    return status if mask & PIDFD_INFO_EXIT else None
