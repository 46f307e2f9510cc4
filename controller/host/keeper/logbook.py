"""The log of one container in the CRI's format, rotated by size, exact across a killed keeper.

`2026-01-02T03:04:05.123456789Z stdout F text`; a part of a line longer than 16 KiB has P for F.
How far the log and each stream have come is written down after every write, so a successor can tell a write
that counts from one that was interrupted, which it takes back and repeats.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time

import proc

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Sequence

STREAMS = (b"stdout", b"stderr")
REACHED = struct.Struct("QQQQ")  # inode and size of the log; how much of each stream's spool is in it


class Logbook:
    """A full disk loses lines, never the keeper; how many were lost is written when there is space again."""

    def __init__(self, directory: str, reached: str, max_bytes: int, files: int) -> None:
        self._directory, self._path = directory, directory + "/current.log"
        self._max_bytes, self._files = max_bytes, files
        self._lost = self._size = self._inode = 0
        self._reached = proc.open_or_complain(reached, os.O_RDWR | os.O_CREAT)
        before = os.pread(self._reached, REACHED.size, 0) if self._reached >= 0 else b""
        inode, size, *offsets = REACHED.unpack(before.ljust(REACHED.size, b"\0"))
        self.offsets = list(offsets)
        self._file = self._open()
        if inode == self._inode and size < self._size:
            self._take_back(size)
        self._commit()

    def write(self, stream: int, lines: Sequence[tuple[bytes, bytes]], offset: int) -> None:
        """`lines`: (b"F" or b"P", text); they are in the stream's spool up to `offset`."""
        head = _stamp() + b" " + STREAMS[stream] + b" "
        text = b"".join([head + tag + b" " + line + b"\n" for tag, line in lines])
        if self._lost:
            notice = f"masu: {self._lost} lines were lost: no space was left for the log".encode()
            text = head + b"F " + notice + b"\n" + text
        if self._append(text):
            self._lost = 0
        else:
            self._lost += len(lines)
        self.reach(stream, offset)
        if self._size > self._max_bytes:
            self._rotate()

    def reach(self, stream: int, offset: int) -> None:
        self.offsets[stream] = offset
        self._commit()

    def close(self) -> None:
        for each in (self._file, self._reached):
            if each >= 0:
                os.close(each)

    def _commit(self) -> None:
        """One small write: the kernel does all of it or nothing, whenever this process is killed."""
        if self._reached >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._reached, REACHED.pack(self._inode, self._size, *self.offsets), 0)

    def _open(self) -> int:
        with contextlib.suppress(OSError):  # opening complains
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        file = proc.open_or_complain(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if file >= 0:
            status = os.fstat(file)
            self._inode, self._size = status.st_ino, status.st_size
        return file

    def _append(self, text: bytes) -> bool:
        """All of it or nothing: a torn line would be read as a wrong one."""
        if self._file < 0:
            self._file = self._open()
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            self._take_back(self._size)
            return False
        self._size += written
        return True

    def _take_back(self, size: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, size)
            self._size = size

    def _rotate(self) -> None:
        try:
            for number in range(self._files - 1, 0, -1):
                source = f"{self._path}.{number}"
                if os.path.exists(source):
                    os.replace(source, f"{self._path}.{number + 1}")
            os.replace(self._path, self._path + ".1")
        except OSError:
            return
        os.close(self._file)
        self._file = self._open()
        self._commit()


def _stamp() -> bytes:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest
