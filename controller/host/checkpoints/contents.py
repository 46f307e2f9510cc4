"""Reading back what a manifest describes: pieces to bytes, checked, by threads, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from controller.checkpoints.manifest import Manifest, Piece
from controller.errors import CheckpointDamaged
from controller.host.checkpoints.chunking import THREADS
from controller.host.checkpoints.codec import Codec
from controller.host.checkpoints.packs import Shelf
from controller.host.checkpoints.recent import Recent

AHEAD: Final = 4 * THREADS


class Contents:
    """One checkpoint's bytes. Safe for threads; `close` ends its own."""

    def __init__(self, found: Manifest, shelf: Shelf, codec: Codec) -> None:
        self._chunks, self._sizes = found.chunks, found.body.sizes
        self._shelf, self._codec = shelf, codec
        self._recent = Recent(shelf.read)
        self._pool = ThreadPoolExecutor(THREADS, "checkpoint")
        if len(self._chunks) != len(self._sizes):
            raise CheckpointDamaged("the manifest's body does not belong to its list of chunks")

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def size_of(self, piece: Piece) -> int:
        if isinstance(piece, int):
            return -piece if piece < 0 else self._sizes[piece]
        return sum(piece[3::3])

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece that is no hole. Raises CheckpointDamaged."""
        if isinstance(piece, int):
            return self._shelf.read(self._chunks[piece])
        parts = zip(piece[1::3], piece[2::3], piece[3::3], strict=True)
        data = b"".join(self._recent.read(self._chunks[chunk])[at : at + size] for chunk, at, size in parts)
        if self._codec.name(data).hex() != piece[0]:
            raise CheckpointDamaged(f"window {piece[0]}: its parts do not make what was stored")
        return data

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """Of a small file."""
        return b"".join(self.read(each) if _is_data(each) else bytes(self.size_of(each)) for each in pieces)

    def stream(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of everything but holes, in order."""
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        at = 0
        for piece in pieces:
            if _is_data(piece):
                waiting.append((at, self._pool.submit(self.read, piece)))
                if len(waiting) >= AHEAD:
                    offset, ready = waiting.popleft()
                    yield offset, ready.result()
            at += self.size_of(piece)
        for offset, ready in waiting:
            yield offset, ready.result()

    def write(self, descriptor: int, size: int, pieces: Sequence[Piece]) -> None:
        """Into an empty file: each thread writes what it unpacked, holes stay holes. OSErrors are the caller's."""
        if sum(self.size_of(each) for each in pieces) != size:
            raise CheckpointDamaged("the pieces of a file do not make its size")
        os.ftruncate(descriptor, size)
        waiting: deque[Future[None]] = deque()
        at = 0
        for piece in pieces:
            if _is_data(piece):
                waiting.append(self._pool.submit(self._put, descriptor, at, piece))
                if len(waiting) >= AHEAD:
                    waiting.popleft().result()
            at += self.size_of(piece)
        for each in waiting:
            each.result()

    def check(self, pieces: Iterable[Piece]) -> Iterator[str]:
        """What is wrong with them, in words."""
        waiting: deque[Future[str]] = deque()
        for piece in filter(_is_data, pieces):
            waiting.append(self._pool.submit(self._wrong, piece))
            if len(waiting) >= AHEAD and (wrong := waiting.popleft().result()):
                yield wrong
        yield from filter(None, (each.result() for each in waiting))

    def _wrong(self, piece: Piece) -> str:
        try:
            self.read(piece)
        except CheckpointDamaged as error:
            return str(error)
        return ""

    def _put(self, descriptor: int, at: int, piece: Piece) -> None:
        data = memoryview(self.read(piece))
        while data:
            done = os.pwrite(descriptor, data, at)
            data, at = data[done:], at + done


def _is_data(piece: Piece) -> bool:
    return not isinstance(piece, int) or piece >= 0
