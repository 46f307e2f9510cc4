"""The checkpoint before, by addresses: what a new one is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.checkpoints.manifest import Manifest, Piece, StoredFile, parts_of
from controller.checkpoints.pagemap import Cut, decode, page_cuts
from controller.errors import CheckpointDamaged
from controller.host.checkpoints.chunking import WINDOW, Before, Slots
from controller.host.checkpoints.contents import Contents
from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.packs import Shelf

PAGEMAP: Final = "pagemap-"


class LastTime:
    """The windows of the checkpoint before, by address: what this one is compared with."""

    def __init__(self, last: Manifest, shelf: Shelf, slots: Slots, depot: Depot) -> None:
        self._last, self._shelf, self._slots = last, shelf, slots
        self._contents = Contents(last, shelf, depot.codec)
        self._images = {each.name: each for each in last.body.images}
        self._trees = {
            f"trees/{tree}/{entry.path}": entry
            for tree, entries in last.body.trees.items()
            for entry in entries
            if entry.kind == "file"
        }

    def windows(self, key: str) -> Callable[[Cut], Before | None]:
        """`key`: images/<page map, or file>, or trees/<tree>/<path>. → what was at an address; None for nothing."""
        pieces = self._pieces(key)

        def window(cut: Cut) -> Before | None:
            piece = pieces.get(cut)
            return None if piece is None else self._window(piece)

        return window

    def _pieces(self, key: str) -> Mapping[Cut, Piece]:
        entry = self._trees.get(key)
        if entry is not None:
            return self._by_offset(entry.pieces, {})
        name = key.removeprefix("images/")
        if name.startswith(PAGEMAP) and name in self._images:
            return self._by_address(self._images[name])
        return {}

    def _by_address(self, page_map: StoredFile) -> Mapping[Cut, Piece]:
        try:
            decoded = decode(self._contents.whole(page_map.pieces))
        except CheckpointDamaged:
            return {}
        pages = self._images.get(decoded.pages_file)
        if not pages:
            return {}
        offsets, at = {}, 0
        for cut in page_cuts(decoded, pages.size, WINDOW):
            offsets[at] = cut
            at += cut.size
        return self._by_offset(pages.pieces, offsets) if offsets else {}

    def _by_offset(self, pieces: Sequence[Piece], cut_at: Mapping[int, Cut]) -> Mapping[Cut, Piece]:
        """`cut_at`: offset → the cut there; where it is empty, the offset itself is the address."""
        found, at = {}, 0
        for piece in pieces:
            size = self._contents.size_of(piece)
            cut = cut_at.get(at) if cut_at else Cut(at, size)
            if cut and cut.size == size:
                found[cut] = piece
            at += size
        return found

    def _window(self, piece: Piece) -> Before | None:
        """None for holes, and where a chunk is gone or known to be bad."""
        if isinstance(piece, int):
            if piece < 0 or self._last.chunks[piece] not in self._shelf:
                return None
            slot = self._slots_of(piece)
            return Before(self._last.chunks[piece], ((slot, 0, self._last.body.sizes[piece]),))
        triples = list(parts_of(piece))
        if any(self._last.chunks[chunk] not in self._shelf for chunk, _, _ in triples):
            return None
        parts = tuple((self._slots_of(chunk), at, size) for chunk, at, size in triples)
        return Before(bytes.fromhex(piece[0]), parts)

    def _slots_of(self, chunk: int) -> int:
        return self._slots.of(self._last.chunks[chunk], self._last.body.sizes[chunk])
