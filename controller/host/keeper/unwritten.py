"""What was taken from a pipe and is not in its log yet, where a successor finds it: SIGKILL loses no line.

`RUN_DIR/unwritten` is mapped, and pipes are read into it: what the kernel has taken away, it has put there. Beside
it stands how long the log was, so that a successor cuts off what was just being written, and writes it again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct

import proc

CHUNK = 64 * 1024
REST = 16 * 1024
HEAD = 4096
SIZE = HEAD + REST + CHUNK
DATA = HEAD + REST
FACTS = struct.Struct("<QQHH")
NOTHING = bytes(CHUNK)


class Left:
    """What a keeper was about when it was killed.

    `key`: whose; `inode` and `size` of its log before; `rest`: what it had of a line, and `data`: what it had read
    after that. Zeros at its end cannot be told from nothing.
    """

    def __init__(self, key: str, inode: int, size: int, rest: bytes, data: bytes) -> None:
        self.key, self.inode, self.size, self.rest, self.data = key, inode, size, rest, data


class Unwritten:
    """One for all streams: a keeper does one thing at a time. Without room for it, all goes on as if it were."""

    def __init__(self, path: str) -> None:
        self._map = mmap.mmap(-1, SIZE)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)  # a page that is lacking later would be a SIGBUS
                self._map = mmap.mmap(descriptor, SIZE)
            finally:
                os.close(descriptor)
        except OSError as error:
            proc.complain(f"making {path}", error)
        self._view = memoryview(self._map)
        self._taken = 0

    def left(self) -> Left | None:
        """By a predecessor; it stays until `end`."""
        if not self._map[0]:
            self._map[DATA:] = NOTHING
            return None
        inode, size, key_length, rest_length = FACTS.unpack_from(self._map, 8)
        at = 8 + FACTS.size
        key = self._map[at : at + key_length].decode(errors="replace")
        data = self._map[DATA:].rstrip(b"\0")
        self._taken = len(data)
        return Left(key, inode, size, self._map[HEAD : HEAD + rest_length], data)

    def begin(self, key: bytes, inode: int, size: int, rest: bytes) -> None:
        """From now on until `end` a log and what has come of a line are being changed."""
        facts = FACTS.pack(inode, size, len(key), len(rest)) + key
        self._map[8 : 8 + len(facts)] = facts
        if rest:
            self._map[HEAD : HEAD + len(rest)] = rest
        self._map[0] = 1  # last: half of it means nothing

    def read(self, descriptor: int) -> bytes:
        """What there is, at most CHUNK; once after each `begin`. Raises BlockingIOError."""
        self._taken = os.readv(descriptor, [self._view[DATA:]])
        return self._map[DATA : DATA + self._taken]

    def end(self) -> None:
        """All of it is where it belongs."""
        self._map[0] = (
            0  # first: without the data, what is in the log would be taken for what it should not have
        )
        if self._taken:
            self._map[DATA : DATA + self._taken] = NOTHING[: self._taken]
            self._taken = 0


class Rest:
    """A line that is not finished, in a file beside what is known of its container."""

    def __init__(self, path: str) -> None:
        self._path, self._kept = path, b""

    def load(self) -> bytes:
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            self._kept = file.read(REST)
        return self._kept

    def keep(self, rest: bytes) -> None:
        if rest == self._kept:
            return
        if rest and proc.write(self._path, rest):
            self._kept = rest
        elif self._kept:
            proc.remove(self._path)
            self._kept = b""

    def forget(self) -> None:
        """There is no such stream any more."""
        proc.remove(self._path)
