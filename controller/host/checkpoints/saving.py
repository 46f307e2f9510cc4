"""Making one checkpoint: its files through the chunker into packs, and its body. The caller holds the writer's
lock."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from controller.checkpoints.manifest import Body, Entry, Manifest, Piece, StoredFile, parts_of
from controller.checkpoints.pagemap import Cut, decode, even_cuts, page_cuts
from controller.errors import CheckpointDamaged, StepFailed
from controller.host.checkpoints.chunking import WINDOW, Before, Chunker, Slots, Window
from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.last_time import PAGEMAP, LastTime
from controller.host.checkpoints.packing import Packing
from controller.host.checkpoints.packs import Shelf
from controller.host.checkpoints.trees import TreeFile, scan
from controller.host.text import failed
from controller.model.checkpoint import Checkpoint, Draft, Progress

LARGEST_PAGEMAP: Final = 256 << 20
_LastTime = Callable[[Cut], Before | None]


def _nothing(cut: Cut) -> None:
    """Of a first checkpoint."""
    del cut


class Saving:
    """`min_free`: bytes that have to stay free on the store's file system. `last`: what to compare with."""

    def __init__(
        self, depot: Depot, identity: str, min_free: int, last: Manifest | None, did: Progress
    ) -> None:
        self._depot, self._identity, self._did = depot, identity, did
        self._shelf = Shelf(depot.packs, depot.codec)
        self._slots = Slots()
        self._packing = Packing(depot, self._shelf, identity, min_free, did)
        self._chunker = Chunker(depot.codec, self._shelf, self._slots, self._packing.add)
        self._before = LastTime(last, self._shelf, self._slots, depot) if last else None
        self._size = self._image_bytes = 0

    def save(self, draft: Draft) -> Checkpoint:
        try:
            images = self._images(draft.images)
            self._image_bytes = self._size
            body = Body(
                images,
                tuple(self._extra(name, data) for name, data in sorted(draft.extras.items())),
                {name: self._tree(name, path) for name, path in sorted(draft.trees.items())},
            )
            self._packing.finish()
            return self._publish(draft, body)
        except OSError as error:
            raise failed(error, "storing checkpoint", error.filename or self._depot.root) from error
        finally:
            self._chunker.close()
            self._packing.close()
            self._shelf.close()

    def _publish(self, draft: Draft, body: Body) -> Checkpoint:
        size_of = {self._slots.names[slot]: self._slots.sizes[slot] for slot in _used(body)}
        names = sorted(size_of)
        number = {name: at for at, name in enumerate(names)}
        renumber = _Renumber([number.get(name, -1) for name in self._slots.names])
        body = replace(renumber.body(body), sizes=tuple(size_of[name] for name in names))
        alone = sum(self._shelf.stored_size(name) for name in names)
        found = Checkpoint(
            self._identity, draft.origin, self._size, self._packing.written, alone, tuple(sorted(draft.trees)),
            self._depot.codec.key_id, images=self._image_bytes,
        )  # fmt: skip
        self._depot.publish(found, names, body, lambda what: self._did(what, 0))
        self._did("published", self._packing.written)
        return found

    def _images(self, directory: str) -> tuple[StoredFile, ...]:
        """Regular files alone: CRIU makes nothing else in images that are whole."""
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        layout = {} if not names else _layouts(directory, names)
        return tuple(self._image(directory, name, layout.get(name)) for name in names)

    def _image(self, directory: str, name: str, layout: tuple[str, Sequence[Cut]] | None) -> StoredFile:
        path = f"{directory}/{name}"
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            key, parts = layout or (name, even_cuts(size, WINDOW))
            before = self._last_time(f"images/{key}")
            pieces = self._chunker.pieces(self._windows(descriptor, path, before, parts))
        finally:
            os.close(descriptor)
        return StoredFile(name, size, tuple(pieces))

    def _extra(self, name: str, data: bytes) -> StoredFile:
        parts = [data[at : at + WINDOW] for at in range(0, len(data), WINDOW)]
        self._count(len(data))
        return StoredFile(
            name, len(data), tuple(self._chunker.pieces((partial(bytes, each), None) for each in parts))
        )

    def _tree(self, name: str, directory: str) -> tuple[Entry, ...]:
        return tuple(
            replace(entry, pieces=tuple(self._content(name, entry, file))) if file else entry
            for entry, file in scan(directory)
        )

    def _content(self, tree: str, entry: Entry, file: TreeFile) -> Iterator[Piece]:
        """Data and holes as the file system tells them apart."""
        at = 0
        before = self._last_time(f"trees/{tree}/{entry.path}")
        for start, end in file.extents:
            if start > at:
                yield at - start
            parts = [Cut(start + each.address, each.size) for each in even_cuts(end - start, WINDOW)]
            yield from self._chunker.pieces(self._windows(file.descriptor, entry.path, before, parts, start))
            at = end
        if entry.size > at:
            yield at - entry.size

    def _last_time(self, key: str) -> _LastTime:
        """Once a file: it goes through all pieces of it."""
        return self._before.windows(key) if self._before else _nothing

    def _windows(
        self, descriptor: int, path: str, before: _LastTime, parts: Sequence[Cut], start: int = 0
    ) -> Iterator[Window]:
        at = start
        for cut in parts:
            self._count(cut.size)
            yield partial(_read, descriptor, path, at, cut.size), before(cut)
            at += cut.size

    def _count(self, size: int) -> None:
        self._size += size
        self._did("read", self._size)


def _read(descriptor: int, path: str, at: int, size: int) -> bytes:
    data = os.pread(descriptor, size, at)
    if len(data) != size:
        raise StepFailed(f"{path} became shorter while it was stored", path=path, errno=errno.EIO)
    return data


class _Renumber:
    """From slots to places in the manifest's sorted list."""

    def __init__(self, number: Sequence[int]) -> None:
        self._number = number

    def body(self, body: Body) -> Body:
        return replace(
            body,
            images=tuple(replace(each, pieces=self._pieces(each.pieces)) for each in body.images),
            extras=tuple(replace(each, pieces=self._pieces(each.pieces)) for each in body.extras),
            trees={
                name: tuple(replace(each, pieces=self._pieces(each.pieces)) for each in entries)
                for name, entries in body.trees.items()
            },
        )

    def _pieces(self, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        return tuple(self._piece(each) for each in pieces)

    def _piece(self, piece: Piece) -> Piece:
        if isinstance(piece, int):
            return self._number[piece] if piece >= 0 else piece
        return [
            piece[0],
            *(each for chunk, at, size in parts_of(piece) for each in (self._number[chunk], at, size)),
        ]


def _used(body: Body) -> set[int]:
    """Not every chunk that was compared with is referred to in the end."""
    files = [each.pieces for each in (*body.images, *body.extras)]
    files += [entry.pieces for entries in body.trees.values() for entry in entries]
    used: set[int] = set()
    for piece in (piece for pieces in files for piece in pieces):
        if not isinstance(piece, int):
            used.update(piece[1::3])
        elif piece >= 0:
            used.add(piece)
    return used


def _layouts(directory: str, names: Sequence[str]) -> dict[str, tuple[str, Sequence[Cut]]]:
    """pages file → (the page map that is its key, where to cut it)."""
    found: dict[str, tuple[str, Sequence[Cut]]] = {}
    for name in names:
        if name.startswith(PAGEMAP):
            try:
                decoded = decode(_small(f"{directory}/{name}"))
            except CheckpointDamaged:
                continue  # of a CRIU that we do not know: its pages are stored all the same
            pages = decoded.pages_file
            if pages in names:
                parts = page_cuts(decoded, os.stat(f"{directory}/{pages}").st_size, WINDOW)
                if parts:
                    found[pages] = (name, parts)
    return found


def _small(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointDamaged(f"{path} is no file")
        return file.read(LARGEST_PAGEMAP)
