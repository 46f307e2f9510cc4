"""Two pipes of one container become one log in the CRI's format, rotated by size.

`2026-01-02T03:04:05.123456789Z stdout F text`; a part of a line longer than 16 KiB has P for F.
"""

from __future__ import annotations

import os
import time

PART = 16 * 1024
CHUNK = 64 * 1024
ROUND = 512 * 1024


class Logbook:
    """The log file of one container. A full disk loses lines, never the keeper; how many is written later."""

    def __init__(self, directory: str, max_bytes: int, files: int) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._path = directory + "/current.log"
        self._max_bytes, self._files = max_bytes, files
        self._lost = 0
        self._open()

    def write(self, stream: bytes, lines: list[tuple[bytes, bytes]]) -> None:
        """`lines`: (b"F" or b"P", text)."""
        head = _stamp() + b" " + stream + b" "
        text = b"".join([head + tag + b" " + line + b"\n" for tag, line in lines])
        if self._lost:
            notice = f"masu: {self._lost} lines were lost: no space was left for the log".encode()
            text = head + b"F " + notice + b"\n" + text
        if self._append(text):
            self._lost = 0
        else:
            self._lost += len(lines)
        if self._size > self._max_bytes:
            self._rotate()

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _append(self, text: bytes) -> bool:
        """All of it or nothing: a torn line would be read as a wrong one."""
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            return False
        self._size += written
        return True

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
        self._open()


class Stream:
    """The read end of one pipe, and what has come of a line that is not finished."""

    def __init__(self, name: bytes, descriptor: int, book: Logbook) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._name, self._book, self._rest = name, book, b""

    def drain(self) -> bool:
        """Read what is there, up to a fair share. False when everybody has closed the other end."""
        taken = 0
        while taken < ROUND:
            try:
                data = os.read(self.descriptor, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                self._finish()
                return False
            taken += len(data)
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        lines = []
        for line in whole:
            while len(line) > PART:
                lines.append((b"P", line[:PART]))
                line = line[PART:]  # noqa: PLW2901
            lines.append((b"F", line))
        while len(rest) > PART:
            lines.append((b"P", rest[:PART]))
            rest = rest[PART:]
        self._rest = rest
        if lines:
            self._book.write(self._name, lines)

    def _finish(self) -> None:
        if self._rest:
            self._book.write(self._name, [(b"F", self._rest)])
            self._rest = b""


def _stamp() -> bytes:
    now = time.time_ns()
    seconds, rest = divmod(now, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest
