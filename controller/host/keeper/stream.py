"""One output stream of a container: from its pipe through a spool file into the logbook.

What is read from a pipe is gone from it, so a keeper killed between reading and writing would lose it.
splice(2) moves bytes from the pipe into the spool within one system call, which a kill cannot divide.
"""

from __future__ import annotations

import contextlib
import os

import proc
from logbook import STREAMS, Logbook

PART = 16 * 1024
CHUNK = 64 * 1024
ROUND = 512 * 1024
SPOOL_BYTES = 1024 * 1024
SPLICE_F_NONBLOCK = 2


class Stream:
    """The read end of a pipe (-1: none), and what has come of a line that is not finished."""

    def __init__(self, index: int, spool: str, book: Logbook) -> None:
        self.descriptor = -1
        self._index, self._book, self._path = index, book, f"{spool}.{STREAMS[index].decode()}"
        self._spool, self._end, self._rest = -1, 0, b""
        self._spooled = True
        if os.path.exists(self._path):
            self._recover()

    def _recover(self) -> None:
        """What a keeper before this one had taken from the pipe, but not put into the log."""
        self._open()
        if self._spool >= 0:
            size = os.fstat(self._spool).st_size
            offset = self._book.offsets[self._index]
            offset = offset if offset <= size else 0  # it was shortening the spool: see _shorten
            self._end = size
            self._take(os.pread(self._spool, size - offset, offset))

    def drain(self) -> bool:
        """Read what is there, up to a fair share. False when everybody has closed the other end."""
        taken = 0
        while taken < ROUND:
            try:
                data = self._receive()
            except BlockingIOError:
                return True
            if not data:
                return False
            taken += len(data)
            self._take(data)
            if self._end > SPOOL_BYTES:
                self._shorten()
        return True

    def finish(self) -> None:
        """Nothing more comes: a last line without its end is a line."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._book.write(self._index, [(b"F", rest)], self._end)

    def close(self) -> None:
        for each in (self.descriptor, self._spool):
            if each >= 0:
                os.close(each)
        self.descriptor = self._spool = -1

    def _receive(self) -> bytes:
        if self._spool < 0:
            self._open()
        try:
            count = os.splice(
                self.descriptor, self._spool, CHUNK, offset_dst=self._end, flags=SPLICE_F_NONBLOCK
            )
        except BlockingIOError:
            raise
        except OSError as error:  # better a line that a kill may lose than a container that has to wait
            if self._spooled:
                proc.complain(f"no spool: {error}: {self._path}")
            self._spooled = False
            return os.read(self.descriptor, CHUNK)
        self._spooled = True
        self._end += count
        return os.pread(self._spool, count, self._end - count)

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
            offset = max(self._end - len(rest), self._book.offsets[self._index])
            self._book.write(self._index, lines, offset)

    def _shorten(self) -> None:
        """The unfinished line goes to the front, and the truncation is what makes that valid:

        from then on what is written down lies beyond the end, which a successor reads as 0.
        """
        with contextlib.suppress(OSError):
            os.pwrite(self._spool, self._rest, 0)
            os.ftruncate(self._spool, len(self._rest))
            self._end = len(self._rest)
            self._book.reach(self._index, 0)

    def _open(self) -> None:
        self._spool = proc.open_or_complain(self._path, os.O_RDWR | os.O_CREAT)
