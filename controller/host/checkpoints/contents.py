"""Reading back what a manifest describes: pieces to bytes, checked, by threads, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from controller.checkpoints.manifest import Manifest, Piece, parts_of
from controller.errors import CheckpointDamaged
from controller.host.checkpoints.codec import Codec
from controller.host.checkpoints.packs import Shelf
from controller.host.checkpoints.pipeline import THREADS, in_order
from controller.host.checkpoints.recent import Recent
from controller.host.checkpoints.writing import gathered, put


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
        data = b"".join(
            self._recent.read(self._chunks[chunk])[at : at + size] for chunk, at, size in parts_of(piece)
        )
        if self._codec.name(data).hex() != piece[0]:
            raise CheckpointDamaged(f"window {piece[0]}: its parts do not make what was stored")
        return data

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """Of a small file."""
        return b"".join(self.read(each) if _is_data(each) else bytes(self.size_of(each)) for each in pieces)

    def stream(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of everything but holes, in order."""
        return in_order(self._pool, (partial(self._read_at, at, each) for at, each in self._data(pieces)))

    def write(self, descriptor: int, size: int, pieces: Sequence[Piece]) -> None:
        """Into an empty file, holes stay holes. OSErrors are the caller's.

        This thread alone writes: a file is locked by whoever does, and others would spin on that.
        """
        if sum(self.size_of(each) for each in pieces) != size:
            raise CheckpointDamaged("the pieces of a file do not make its size")
        for at, parts in gathered(self.stream(pieces)):
            put(descriptor, at, parts)
        os.ftruncate(descriptor, size)  # at last: a tmpfs takes far larger pages below the end of a file

    def check(self, pieces: Iterable[Piece]) -> Iterator[str]:
        """What is wrong with them, in words."""
        return filter(
            None, in_order(self._pool, (partial(self._wrong, each) for each in filter(_is_data, pieces)))
        )

    def _data(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Piece]]:
        """(offset, piece) of everything but holes."""
        at = 0
        for piece in pieces:
            if _is_data(piece):
                yield at, piece
            at += self.size_of(piece)

    def _read_at(self, at: int, piece: Piece) -> tuple[int, bytes]:
        return at, self.read(piece)

    def _wrong(self, piece: Piece) -> str:
        try:
            self.read(piece)
        except CheckpointDamaged as error:
            return str(error)
        return ""


def _is_data(piece: Piece) -> bool:
    return not isinstance(piece, int) or piece >= 0
