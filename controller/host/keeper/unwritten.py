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
from logbook import CHUNK, PART

HEAD = 4096
DATA = HEAD + PART
SIZE = DATA + CHUNK
FLAG = 0
READ = struct.Struct("<I")
READ_AT = 8
FACTS = struct.Struct("<QQQHH?")
FACTS_AT = 16
NOTHING = bytes(CHUNK)


class Left:
    """What a keeper was about when it was killed.

    `key`: whose; `inode` and `size` of its log before; `rest`: what it had of a line that was `begun` in the log or
    not, and `data`: what it had read after that.
    """

    def __init__(self, key: bytes, inode: int, size: int, rest: bytes, data: bytes, *, begun: bool) -> None:
        self.key, self.inode, self.size = key, inode, size
        self.rest, self.begun, self.data = rest, begun, data


class Unwritten:
    """One for all streams: a keeper does one thing at a time. Without room for it, all goes on as if it were.

    `predecessor`: pid of the keeper before this one; what another has left there was not its last word.
    """

    def __init__(self, path: str, predecessor: int) -> None:
        self._predecessor, self._pid = predecessor, os.getpid()
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
            proc.remove(path)
        self._view = memoryview(self._map)
        self._taken = 0

    def left(self) -> Left | None:
        """By a predecessor; it stays until `end`."""
        self._taken = CHUNK
        pid, inode, size, key_length, rest_length, begun = FACTS.unpack_from(self._map, FACTS_AT)
        if not self._map[FLAG] or pid != self._predecessor:
            self.end()
            return None
        at = FACTS_AT + FACTS.size
        key = self._map[at : at + key_length]
        (length,) = READ.unpack_from(self._map, READ_AT)  # 0: it was killed before it could say so
        data = self._map[DATA : DATA + length] if length else self._map[DATA:].rstrip(b"\0")
        return Left(key, inode, size, self._map[HEAD : HEAD + rest_length], data, begun=begun)

    def begin(self, key: bytes, inode: int, size: int, rest: bytes, *, begun: bool) -> None:
        """From now on until `end` a log and what has come of a line are being changed."""
        facts = FACTS.pack(self._pid, inode, size, len(key), len(rest), begun) + key
        self._map[FACTS_AT : FACTS_AT + len(facts)] = facts
        if rest:
            self._map[HEAD : HEAD + len(rest)] = rest
        READ.pack_into(self._map, READ_AT, 0)
        self._map[FLAG] = 1  # last: half of it means nothing

    def read(self, descriptor: int) -> bytes:
        """What there is, at most CHUNK; once after each `begin`. Raises BlockingIOError."""
        self._taken = os.readv(descriptor, [self._view[DATA:]])
        READ.pack_into(self._map, READ_AT, self._taken)
        return self._map[DATA : DATA + self._taken]

    def end(self) -> None:
        """All of it is where it belongs."""
        self._map[FLAG] = 0  # first: without the data, all that is in the log would be too much
        if self._taken:
            self._map[DATA : DATA + self._taken] = NOTHING[: self._taken]
            self._taken = 0


class Rest:
    """A line that is not finished, in a file beside what is known of its container.

    There, what has yet to be written of it comes after a P, when its beginning is in the log, or else an F.
    """

    def __init__(self, path: str) -> None:
        self._path, self.kept, self.begun = path, b"", False
        with contextlib.suppress(OSError), open(path, "rb") as file:
            self.begun = file.read(1) == b"P"
            self.kept = file.read(PART)

    def keep(self, rest: bytes, *, begun: bool) -> None:
        if (rest, begun) == (self.kept, self.begun):
            return
        self.kept, self.begun = rest, begun
        if (rest or begun) and proc.write(self._path, (b"P" if begun else b"F") + rest):
            return
        proc.remove(self._path)
        self.kept, self.begun = b"", False
