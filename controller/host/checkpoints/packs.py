"""Packs: files of many chunks, written once and never changed, each with an index at its end.

One file per chunk would cost an fsync per chunk. A pack that is there is whole: it gets its name after its fsync.
Layout: magic, chunks, index (48 bytes per chunk: name, offset, stored size, size), footer.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from controller.errors import CheckpointDamaged
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.checkpoints.codec import ID_SIZE, Codec
from controller.host.checkpoints.writing import AT_ONCE, MOST_PARTS, put
from controller.host.text import failed

MAGIC: Final = b"masu-pack-1\n\0\0\0\0"
ENTRY: Final = struct.Struct("<32sQII")
FOOTER: Final = struct.Struct("<QI32s16s")
SUFFIX, TEMPORARY, BAD = ".pack", ".tmp", ".bad"
PACK_BYTES: Final = 64 << 20
"""About the size of an object in an object store; each costs one fsync."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk lies; `size`: its bytes when unpacked."""

    pack: str
    offset: int
    stored: int
    size: int


class Shelf:
    """All chunks of the packs in a directory, as found when it was made.

    `packs`: names of those that can be read. `damage`: of the others, which hold nothing that anybody could use;
    people may want to look at them.
    """

    def __init__(self, directory: str, codec: Codec) -> None:
        self._directory, self._codec = directory, codec
        self._at: dict[bytes, tuple[int, int, int, int]] = {}
        self.packs: list[str] = []
        self._open: dict[str, int] = {}
        self.damage: dict[str, str] = {}
        for name in pack_names(directory):
            self._load(name)

    def find(self, name: bytes) -> Place | None:
        found = self._at.get(name)
        return Place(self.packs[found[0]], *found[1:]) if found else None

    def stored_size(self, name: bytes) -> int:
        found = self._at.get(name)
        return found[2] if found else 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._at

    def chunks(self) -> Iterator[tuple[bytes, Place]]:
        for name, (pack, *rest) in self._at.items():
            yield name, Place(self.packs[pack], *rest)

    def add(self, pack: str, entries: list[tuple[bytes, int, int, int]]) -> None:
        self.packs.append(pack)
        number = len(self.packs) - 1
        for name, offset, stored, size in entries:
            self._at.setdefault(name, (number, offset, stored, size))

    def stored(self, name: bytes) -> bytes:
        """A chunk's bytes as they lie on disk."""
        place = self.find(name)
        if place is None:
            raise CheckpointDamaged(f"chunk {name.hex()} is missing", path=self._directory)
        try:
            data = os.pread(self._descriptor(place.pack), place.stored, place.offset)
        except OSError as error:
            raise failed(error, "reading", f"{self._directory}/{place.pack}") from error
        if len(data) != place.stored:
            raise CheckpointDamaged(f"{place.pack} is too short", path=f"{self._directory}/{place.pack}")
        return data

    def read(self, name: bytes) -> bytes:
        """The chunk itself, checked. A damaged one is remembered as such: the next writer stores it anew."""
        place = self.find(name)
        try:
            return self._codec.unpack(self.stored(name), name, place.size if place else 0)
        except CheckpointDamaged as error:
            if place is None or error.path:
                raise
            self._at.pop(name, None)
            self._mark(place.pack, name)
            path = f"{self._directory}/{place.pack}"
            raise CheckpointDamaged(f"{error} ({path} at {place.offset})", path=path) from error

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, pack: str) -> int:
        if pack not in self._open:
            opened = os.open(f"{self._directory}/{pack}", os.O_RDONLY | os.O_CLOEXEC)
            if self._open.setdefault(pack, opened) != opened:
                os.close(opened)  # another thread was first
        return self._open[pack]

    def _load(self, name: str) -> None:
        try:
            entries = read_index(f"{self._directory}/{name}", self._codec)
        except CheckpointDamaged as error:
            self.damage[name] = str(error)
            return
        bad = _bad_chunks(f"{self._directory}/{name}")
        self.add(name, [each for each in entries if each[0] not in bad])

    def _mark(self, pack: str, name: bytes) -> None:
        """Best effort: what is not marked is found again."""
        with contextlib.suppress(OSError):
            descriptor = os.open(
                f"{self._directory}/{pack}{BAD}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(descriptor, name.hex().encode() + b"\n")
            finally:
                os.close(descriptor)


class PackWriter:
    """One pack in the making, under a temporary name. OSErrors are the caller's to translate."""

    def __init__(self, directory: str, name: str, codec: Codec) -> None:
        self.name, self._directory, self._codec = name, directory, codec
        self.temporary = f"{directory}/{name}{TEMPORARY}"
        self.entries: list[tuple[bytes, int, int, int]] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self.temporary, flags, 0o600)
        self._waiting, self._written = [MAGIC], 0
        self.size = len(MAGIC)

    def add(self, name: bytes, stored: bytes, size: int) -> None:
        self._waiting.append(stored)
        self.entries.append((name, self.size, len(stored), size))
        self.size += len(stored)
        if len(self._waiting) == MOST_PARTS or self.size - self._written >= AT_ONCE:
            self._write()

    def publish(self, did: Callable[[str], None]) -> int:
        """Index, fsync, rename; the directory is synced by the caller, once for all packs. → bytes of the file."""
        index = b"".join(ENTRY.pack(*each) for each in self.entries)
        footer = FOOTER.pack(self.size, len(self.entries), self._codec.digest(index), MAGIC)
        self._waiting += (index, footer)
        self._write()
        did("pack written")
        os.fsync(self._descriptor)
        self._close()
        did("pack synced")
        os.rename(self.temporary, f"{self._directory}/{self.name}")
        did("pack named")
        return self.size + len(index) + len(footer)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)

    def _write(self) -> None:
        """The disk begins at once, so that there is little left to wait for when the pack is full."""
        put(self._descriptor, self._written, self._waiting)
        self._waiting = []
        syscalls.start_writing(self._descriptor, self._written, self.size - self._written)
        self._written = self.size

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def pack_names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failed(error, "listing", directory) from error


def read_index(path: str, codec: Codec) -> list[tuple[bytes, int, int, int]]:
    """(name, offset, stored size, size) of each chunk. Raises CheckpointDamaged for a pack that is torn."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END) - FOOTER.size
            if end < len(MAGIC):
                raise CheckpointDamaged(f"{path} is too short", path=path)
            file.seek(end)
            start, count, digest, magic = FOOTER.unpack(file.read(FOOTER.size))
            if magic != MAGIC or start + count * ENTRY.size != end:
                raise CheckpointDamaged(f"{path} has no whole index", path=path)
            file.seek(start)
            index = file.read(count * ENTRY.size)
    except OSError as error:
        raise CheckpointDamaged(str(failed(error, "reading", path)), path=path) from error
    if codec.digest(index) != digest:
        raise CheckpointDamaged(f"{path} has a damaged index", path=path)
    return [each for each in ENTRY.iter_unpack(index) if each[1] + each[2] <= start]


def _bad_chunks(path: str) -> set[bytes]:
    try:
        with open(path + BAD, "rb") as file:
            return {bytes.fromhex(line.decode()) for line in file.read().split() if len(line) == 2 * ID_SIZE}
    except (OSError, ValueError):
        return set()
