"""New chunks of a checkpoint into packs, one after the other: one is brought to disk while the next is filled."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.packs import PACK_BYTES, SUFFIX, PackWriter, Shelf
from controller.host.syscalls import free_bytes
from controller.host.text import no_room, sync_directory
from controller.model.checkpoint import Progress


class Packing:
    """`shelf` learns of every pack that has come to disk; `min_free`: bytes that have to stay free there.

    Called from one thread. Raises StepFailed when there is no room; OSErrors are the caller's to translate.
    """

    def __init__(self, depot: Depot, shelf: Shelf, identity: str, min_free: int, did: Progress) -> None:
        self._depot, self._shelf, self._identity, self._min_free = depot, shelf, identity, min_free
        self._did = did
        self._pool = ThreadPoolExecutor(1, "packs")
        self._filled: PackWriter | None = None
        self._leaving: tuple[PackWriter, Future[int]] | None = None
        self._packs = self.written = 0

    def add(self, name: bytes, stored: bytes, size: int) -> None:
        pack = self._filled or self._begin()
        pack.add(name, stored, size)
        self.written += len(stored)
        if pack.size >= PACK_BYTES:
            self._send(pack)

    def finish(self) -> None:
        """Everything is on disk, under its name."""
        if self._filled:
            self._send(self._filled)
        self._arrive()
        sync_directory(self._depot.packs)

    def close(self) -> None:
        """What is not finished goes."""
        self._pool.shutdown(wait=True)
        for pack in (self._filled, self._leaving and self._leaving[0]):
            if pack:
                pack.drop()

    def _begin(self) -> PackWriter:
        self._check_space(PACK_BYTES)
        name = f"{self._identity}-{self._packs:05}{SUFFIX}"
        self._filled = PackWriter(self._depot.packs, name, self._depot.codec)
        self._packs += 1
        return self._filled

    def _send(self, pack: PackWriter) -> None:
        """Once the one before has arrived: what is written and not yet on disk takes memory."""
        self._arrive()
        number = self._packs
        self._leaving = (pack, self._pool.submit(pack.publish, lambda what: self._did(what, number)))
        self._filled = None

    def _arrive(self) -> None:
        if self._leaving is None:
            return
        pack, published = self._leaving
        published.result()
        self._leaving = None
        self._shelf.add(pack.name, pack.entries)
        self._check_space(0)

    def _check_space(self, wanted: int) -> None:
        """Asked once per pack; what one pack too much would take is counted in."""
        if not self._min_free:
            return
        free = free_bytes(self._depot.root)
        if free - wanted < self._min_free:
            raise no_room(self._depot.root, free, self._min_free)
