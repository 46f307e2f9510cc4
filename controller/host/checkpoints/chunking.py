"""From bytes to chunks: what is known is referred to, what changed a little is taken apart, the rest is packed.

Windows are read and looked at by threads, in bounded number, and put together in order by the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from controller.checkpoints.manifest import Piece
from controller.errors import CheckpointDamaged
from controller.frozen import dataclass
from controller.host.checkpoints.codec import Codec
from controller.host.checkpoints.packs import Shelf
from controller.host.checkpoints.pipeline import THREADS, in_order
from controller.host.checkpoints.recent import Recent

WINDOW: Final = 128 << 10
"""Bytes of memory that are one chunk. Smaller costs Python more per byte, larger dirties more at once."""
PAGE: Final = 4096
ZEROS: Final = bytes(WINDOW)

Part = tuple[int, int, int]
"""(slot, offset, size) of some bytes of a chunk."""


@dataclass(frozen=True, slots=True)
class Before:
    """A window as the last checkpoint has it: the parts that make it."""

    name: bytes
    parts: tuple[Part, ...]


Window = tuple[Callable[[], bytes], Before | None]
"""Reads some neighbouring bytes, in whatever thread; and what was there the last time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a window: a hole (no name), a chunk (`stored` when it is new), or pages `changed` since
    `before`."""

    size: int
    name: bytes = b""
    stored: bytes = b""
    before: Before | None = None
    changed: tuple[tuple[int, bytes], ...] = ()


class Slots:
    """Chunks that a checkpoint refers to, by number in the order they came up."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.sizes: list[int] = []
        self._by_name: dict[bytes, int] = {}

    def of(self, name: bytes, size: int) -> int:
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = self.promise(size)
            self.names[known] = name
        return known

    def promise(self, size: int) -> int:
        """A slot whose chunk gets its name later."""
        self.names.append(b"")
        self.sizes.append(size)
        return len(self.names) - 1

    def keep(self, slot: int, name: bytes, size: int) -> None:
        self.names[slot], self.sizes[slot] = name, size


class Chunker:
    """`store` is told (name, stored bytes, size) of each new chunk, in the caller's thread."""

    def __init__(
        self, codec: Codec, shelf: Shelf, slots: Slots, store: Callable[[bytes, bytes, int], None]
    ) -> None:
        self._codec, self._shelf, self._slots, self._store = codec, shelf, slots, store
        self._recent = Recent(shelf.read)
        self._known: set[bytes] = set()
        self._composed: dict[bytes, tuple[Part, ...]] = {}
        self._pool = ThreadPoolExecutor(THREADS, "checkpoint")
        self._patch: list[bytes] = []
        self._patch_slot, self._patch_size = -1, 0

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def pieces(self, windows: Iterable[Window]) -> list[Piece]:
        """Of a file, in its order. Raises what reading it raises."""
        found: list[Piece] = []
        looks = (partial(self._look, read, before) for read, before in windows)
        for each in in_order(self._pool, looks):
            if not each.name:
                _append_hole(found, each.size)
            else:
                found.append(self._piece(each))
        self._flush()
        return found

    def _look(self, read: Callable[[], bytes], before: Before | None) -> Found:
        data = read()
        size = len(data)
        if data == ZEROS[:size]:
            return Found(size)
        name = self._codec.name(data)
        if name in self._known or name in self._shelf or name in self._composed:
            return Found(size, name)
        if before is not None:
            if before.name == name:
                return Found(size, name, before=before)
            changed = self._changes(data, before)
            if changed is not None:
                return Found(size, name, before=before, changed=changed)
        return Found(size, name, self._codec.pack(data, name))

    def _changes(self, data: bytes, before: Before) -> tuple[tuple[int, bytes], ...] | None:
        """(offset, page) of what differs; None when the window is better stored anew.

        At least half of it has to come from one chunk, so that no old chunk is kept for a few last pages.
        """
        try:
            old = b"".join(
                self._recent.read(self._slots.names[slot])[at : at + size] for slot, at, size in before.parts
            )
        except CheckpointDamaged:
            return None
        if len(old) != len(data):
            return None
        offsets = range(0, len(data), PAGE)
        changed = [at for at in offsets if data[at : at + PAGE] != old[at : at + PAGE]]
        kept: dict[int, int] = {}
        for slot, _, size in _without(before.parts, changed, len(data)):
            if slot >= 0:
                kept[slot] = kept.get(slot, 0) + size
        if not kept or max(kept.values()) * 2 < len(data):
            return None
        return tuple((at, data[at : at + PAGE]) for at in changed)

    def _piece(self, found: Found) -> Piece:
        if found.name in self._composed:
            return _composed(found.name, self._composed[found.name])
        if found.before is not None:
            parts = self._parts(found, found.before)
            self._composed[found.name] = parts
            return _composed(found.name, parts)
        if found.stored and found.name not in self._known:
            self._store(found.name, found.stored, found.size)
        self._known.add(found.name)
        return self._slots.of(found.name, found.size)

    def _parts(self, found: Found, before: Before) -> tuple[Part, ...]:
        pages = dict(found.changed)
        parts: list[Part] = []
        at = 0
        for slot, offset, size in _without(before.parts, sorted(pages), found.size):
            part = (slot, offset, size) if slot >= 0 else self._patched(pages[at])
            _append_part(parts, part)
            at += size
        return tuple(parts)

    def _patched(self, page: bytes) -> Part:
        """Changed pages of several windows share a chunk: a page alone compresses badly."""
        if self._patch_size + len(page) > WINDOW:
            self._flush()
        if not self._patch:
            self._patch_slot = self._slots.promise(0)
        self._patch.append(page)
        part = (self._patch_slot, self._patch_size, len(page))
        self._patch_size += len(page)
        return part

    def _flush(self) -> None:
        if not self._patch:
            return
        data = b"".join(self._patch)
        name = self._codec.name(data)
        if name not in self._known and name not in self._shelf:
            self._store(name, self._codec.pack(data, name), len(data))
        self._known.add(name)
        self._slots.keep(self._patch_slot, name, len(data))
        self._patch, self._patch_size = [], 0


def _without(parts: Sequence[Part], changed: Sequence[int], size: int) -> Iterator[Part]:
    """The parts of a window with its changed pages, by offset, cut out: those have slot -1."""
    gone = set(changed)
    at = 0
    for slot, offset, length in parts:
        end, start = at + length, at
        while start < end:
            page = start - start % PAGE
            upto = min(end, page + PAGE)
            yield (-1, start, upto - start) if page in gone else (slot, offset + start - at, upto - start)
            start = upto
        at = end
    if at != size:
        raise AssertionError("parts that do not make the window")


def _append_part(parts: list[Part], part: Part) -> None:
    """Neighbours in the same chunk become one."""
    slot, offset, size = part
    if parts and parts[-1][0] == slot and parts[-1][1] + parts[-1][2] == offset:
        parts[-1] = (slot, parts[-1][1], parts[-1][2] + size)
    else:
        parts.append(part)


def _composed(name: bytes, parts: Sequence[Part]) -> Piece:
    return [name.hex(), *(number for part in parts for number in part)]


def _append_hole(found: list[Piece], size: int) -> None:
    last = found[-1] if found else 0
    if isinstance(last, int) and last < 0:
        found[-1] = last - size
    else:
        found.append(-size)
