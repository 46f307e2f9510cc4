"""What the keeper asks /proc, and the small files it keeps."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Iterable
    from typing import Any

PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
INFO = struct.Struct("QQ11Ii")


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when there is no such process. Raises OSError when nobody can say now."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text[text.rindex(")") + 2 :].split()[19])


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: str, value: dict[str, Any]) -> bool:
    """As `write`."""
    return write(path, json.dumps(value).encode())


def write(path: str, text: bytes) -> bool:
    """All of it or nothing: the old text stays when there is no space. → whether it was written."""
    temporary = path + ".tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(descriptor, text)
        finally:
            os.close(descriptor)
        if written == len(text):
            os.replace(temporary, path)
            return True
    except OSError as error:
        complain(f"writing {path}", error)
    remove(temporary)
    return False


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        complain(f"removing {path}", error)


def complain(doing: str, error: Exception) -> None:
    """One line in `keeper.log`: of one container's trouble the keeper does not die."""
    try:
        print(f"{doing}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    except OSError:
        return


def close(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        if each >= 0:
            os.close(each)


def reopen_pipes(pids: list[int], inodes: list[int]) -> list[int]:
    """Read ends of pipes that one of these processes still has open, -1 when none has.

    Raises OSError when there is a pipe that cannot be opened now, because of too many open files for one.
    """
    found: list[int] = []
    try:
        for inode in inodes:
            path = _path_of_pipe(pids, f"pipe:[{inode}]")
            found.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if path else -1)
    except FileNotFoundError:  # whoever had it has just ended
        close(found)
        return reopen_pipes(pids, inodes)
    except OSError:
        close(found)
        raise
    return found


def _path_of_pipe(pids: list[int], wanted: str) -> str:
    for pid in pids:
        directory = f"/proc/{pid}/fd/"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for name in os.listdir(directory):
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(directory + name) == wanted:
                        return directory + name
    return ""


def exit_status(pid: int, pidfd: int) -> int | None:
    """The wait status of a process that is somebody else's child; None: it has not ended, or nobody can say.

    From field 52 of /proc/PID/stat until it is reaped, and then from its pidfd (Linux 6.15).
    """
    asked = select.poll()
    asked.register(pidfd, select.POLLIN)
    if not asked.poll(0):
        return None
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:  # what was read may be somebody else's
        return _status_of_reaped(pidfd)
    return int(fields[49]) if fields else None


def code_and_signal(status: int) -> tuple[int, int]:
    """Of a wait status; one of them is 0."""
    code = os.waitstatus_to_exitcode(status)
    return max(code, 0), max(-code, 0)


def _status_of_reaped(pidfd: int) -> int | None:
    buffer = bytearray(INFO.pack(PIDFD_INFO_EXIT, 0, *([0] * 11), 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = INFO.unpack(bytes(buffer))
    return status if mask & PIDFD_INFO_EXIT else None
