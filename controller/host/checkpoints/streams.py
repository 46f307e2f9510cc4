"""Streams of archives: read exactly, summed, and never beyond what belongs to a member."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from controller.errors import ArchiveRefused

BLOCK: Final = 1 << 20
MOST_BLOCKS_AFTER: Final = 16


class Stream:
    """Reads exactly, and turns what a decompressor complains of into one kind of refusal."""

    def __init__(self, source: Any, path: str, digest: Callable[[], Any]) -> None:
        self._source, self._path, self._new_digest = source, path, digest
        self._digest = digest()

    def begin(self) -> None:
        """What is read from here on is one member's."""
        self._digest = self._new_digest()

    def sum(self) -> str:
        digest: str = self._digest.hexdigest()
        return digest

    def end(self) -> None:
        """Nothing but zeros may follow; a compressed stream checks itself at its end."""
        for _ in range(MOST_BLOCKS_AFTER):
            rest = self.read(BLOCK)
            if rest.strip(b"\0"):
                raise ArchiveRefused("something follows the end of the archive")
            if len(rest) < BLOCK:
                return
        raise ArchiveRefused("the archive does not end")

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        got = b"".join(parts)
        self._digest.update(got)
        return got

    def _some(self, size: int) -> bytes:
        try:
            part: bytes = self._source.read(size)
        except Exception as error:  # zlib.error, EOFError, ZstdError: one module each
            if isinstance(error, OSError) and error.errno:  # that of gzip is an OSError that has none
                raise
            raise ArchiveRefused(f"{self._path}: cannot be decompressed: {error}") from error
        return part


class Bounded:
    """The part of a stream that is one member: a tar inside a tar cannot read beyond its end."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int) -> bytes:
        got = self._stream.read(min(size, self._left))
        self._left -= len(got)
        return got

    def drain(self) -> None:
        while self._left:
            if not self.read(min(self._left, BLOCK)):
                raise ArchiveRefused("the archive ends in the middle")


def exactly(stream: Stream | Bounded, size: int) -> bytes:
    got = stream.read(size)
    if len(got) != size:
        raise ArchiveRefused("the archive ends in the middle")
    return got


def copy(stream: Stream | Bounded, size: int, descriptor: int | None) -> None:
    """Zeros become holes."""
    while size:
        data = stream.read(min(size, BLOCK))
        if not data:
            raise ArchiveRefused("the archive ends in the middle")
        size -= len(data)
        if descriptor is not None:
            _write(descriptor, data)


def _write(descriptor: int, data: bytes) -> None:
    if not data.strip(b"\0"):
        os.ftruncate(descriptor, os.lseek(descriptor, len(data), os.SEEK_CUR))
        return
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
