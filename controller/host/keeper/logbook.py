"""Two pipes of one container become one log in the CRI's format, rotated by size.

`2026-01-02T03:04:05.123456789Z stdout F text`; P for F: the line goes on. A line longer than 16 KiB is written
in parts, and one that is not finished for a while is written as far as it has come.
"""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Callable
    from typing import TypeVar

    from unwritten import Left, Rest, Unwritten

    T = TypeVar("T")

PART = 16 * 1024
CHUNK = 64 * 1024
ROUND = 512 * 1024
UNFINISHED_S = 0.25
MOST_AT_ONCE = 64 * (CHUNK + PART)
"""In a log, of what is read at once: each byte may be a line."""


class Logbook:
    """The log file of one container. A full disk loses lines, never the keeper; how many is written later."""

    def __init__(self, directory: str, max_bytes: int, files: int) -> None:
        self._directory, self._path = directory, directory + "/current.log"
        self._max_bytes, self._files = max_bytes, files
        self._file, self.size, self.inode, self._lost = -1, 0, 0, 0
        self._open()

    def write(self, stream: bytes, lines: list[tuple[bytes, bytes]]) -> None:
        """`lines`: (b"F" or b"P", text)."""
        head = _stamp() + b" " + stream + b" "
        self._put(head, b"".join([head + tag + b" " + line + b"\n" for tag, line in lines]), len(lines))

    def write_whole(self, stream: bytes, text: bytes) -> None:
        """Whole lines, none of them too long, without the last newline: a flood of short ones costs little."""
        head = _stamp() + b" " + stream + b" "
        between = b"\n" + head + b"F "
        self._put(head, between[1:] + text.replace(b"\n", between) + b"\n", text.count(b"\n") + 1)

    def _put(self, head: bytes, text: bytes, count: int) -> None:
        if self._lost:
            notice = f"masu: {self._lost} lines were lost: no space was left for the log".encode()
            text = head + b"F " + notice + b"\n" + text
        if self._append(text):
            self._lost = 0
        else:
            self._lost += count

    def make_ready(self) -> None:
        """Before something is written, never while it is: a successor must find it where it was."""
        if self.size > self._max_bytes:
            self._rotate()
        if self._file < 0:
            self._open()

    def cut(self, left: Left) -> None:
        """Take out what a keeper has written of this before it was killed. Another file has nothing of it.

        What cannot be taken out will be there twice, which is better than not at all.
        """
        if self.inode == left.inode and left.size < self.size <= left.size + MOST_AT_ONCE:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, left.size)
                self.size = left.size

    def unfinished(self, stream: bytes) -> bool:
        """Whether the last line of this stream is still to go on, as far as the end of the log tells."""
        try:
            with open(self._path, "rb") as file:
                file.seek(max(0, self.size - CHUNK))
                fields = [line.split(b" ", 3) for line in file]
        except OSError:
            return False
        return next((each[2] == b"P" for each in reversed(fields) if each[1:2] == [stream]), False)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> bool:
        """Tried again with every write: no space or no descriptor may be left just now."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._file = os.open(self._path, flags, 0o600)
        except OSError:
            return False
        found = os.fstat(self._file)
        self.size, self.inode = found.st_size, found.st_ino
        return True

    def _append(self, text: bytes) -> bool:
        """All of it or nothing: a torn line would be read as a wrong one."""
        if self._file < 0 and not self._open():
            return False
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            return False
        self.size += written
        return True

    def _rotate(self) -> None:
        """A log that somebody has taken away is begun anew."""
        try:
            for number in range(self._files - 1, 0, -1):
                source = f"{self._path}.{number}"
                if os.path.exists(source):
                    os.replace(source, f"{self._path}.{number + 1}")
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path, self._path + ".1")
        except OSError:
            return
        self.close()
        self.size = self.inode = 0
        self._open()


class Lines:
    """What comes of one stream's bytes: lines in a log, and the beginning of one that is not finished.

    `begun`: a part of it is in the log. `rest`: what is not.
    """

    def __init__(self, name: bytes, book: Logbook, rest: bytes, *, begun: bool) -> None:
        self._name, self._book, self.rest = name, book, rest
        self._since = 0.0
        self.begun = begun or book.unfinished(name)  # what was begun before a reboot, the log alone tells

    @property
    def has_waited(self) -> bool:
        """The end of the line has not come for long."""
        return bool(self.rest) and time.monotonic() - self._since > UNFINISHED_S

    def take(self, data: bytes) -> None:
        whole, newline, rest = (self.rest + data).rpartition(b"\n")
        if newline or not self.rest:
            self._since = time.monotonic()
        if newline and _is_short(whole):
            self._book.write_whole(self._name, whole)
        elif newline:
            self._book.write(self._name, [each for line in whole.split(b"\n") for each in _parted(line)])
        parts, self.rest = _cut(rest)
        self.begun = bool(parts) or (self.begun and not newline)
        if parts:
            self._book.write(self._name, parts)

    def flush(self) -> None:
        """As far as the line has come."""
        self._book.write(self._name, [(b"P", self.rest)])
        self.rest, self.begun = b"", True

    def finish(self) -> None:
        """Nothing more will come: an unfinished line ends here."""
        if self.rest or self.begun:
            self._book.write(self._name, [(b"F", self.rest)])
        self.rest, self.begun = b"", False


class Stream:
    """The read end of one pipe, or -1: it is gone. `key`: NAME/STREAM, for whoever finds it `unwritten`.

    `goes_on`: the pipe had a reader before this one, so a line may be half written, and `kept` has the rest.
    """

    def __init__(
        self,
        key: bytes,
        descriptor: int,
        book: Logbook,
        kept: Rest,
        unwritten: Unwritten,
        *,
        goes_on: bool,
    ) -> None:
        self.descriptor = descriptor
        self._key, self._book, self._kept, self._unwritten = key, book, kept, unwritten
        self._lines = Lines(key.partition(b"/")[2], book, kept.kept, begun=kept.begun)
        if descriptor >= 0:
            os.set_blocking(descriptor, False)
        if descriptor < 0 or not goes_on:
            self.finish()

    @property
    def waits(self) -> bool:
        """Something of a line is held back, in the hope that its end will come."""
        return bool(self._lines.rest)

    def drain(self) -> bool:
        """Read what is there, up to a fair share. False when everybody has closed the other end."""
        taken = 0
        while taken < ROUND:
            try:
                length = self._change(self._read)
            except BlockingIOError:
                return True
            if not length:
                self.finish()
                return False
            taken += length
        return True

    def flush(self) -> bool:
        """What has waited for long is written down. → nothing waits."""
        if self._lines.has_waited:
            self._change(self._lines.flush)
        return not self.waits

    def finish(self) -> None:
        """Nothing more will come: an unfinished line ends here."""
        self._change(self._lines.finish)

    def _read(self) -> int:
        """→ how much there was. Raises BlockingIOError."""
        data = self._unwritten.read(self.descriptor)
        self._lines.take(data)
        return len(data)

    def _change(self, write: Callable[[], T]) -> T:
        """All or nothing, for whoever comes after a SIGKILL."""
        self._book.make_ready()
        lines = self._lines
        self._unwritten.begin(self._key, self._book.inode, self._book.size, lines.rest, begun=lines.begun)
        try:
            found = write()
            self._kept.keep(lines.rest, begun=lines.begun)
        finally:
            self._unwritten.end()
        return found


def _is_short(text: bytes) -> bool:
    """Whether no line in it has more than a part: looked at in strides, not line by line."""
    at = 0
    while len(text) - at > PART:
        newline = text.rfind(b"\n", at, at + PART + 1)
        if newline < 0:
            return False
        at = newline + 1
    return True


def _parted(line: bytes) -> list[tuple[bytes, bytes]]:
    parts, last = _cut(line)
    return [*parts, (b"F", last)]


def _cut(line: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Full parts, and what comes after them."""
    end = max(0, len(line) - 1) // PART * PART
    return [(b"P", line[at : at + PART]) for at in range(0, end, PART)], line[end:]


def _stamp() -> bytes:
    now = time.time_ns()
    seconds, rest = divmod(now, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest
