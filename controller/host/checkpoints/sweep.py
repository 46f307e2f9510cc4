"""Giving space back: what no manifest names goes, whole packs at once; packs that are mostly dead are rewritten.

Mark and sweep over what is on disk, so that there is no count that could be wrong after a crash. Killed anywhere,
it leaves at most a chunk in two packs, which the next one clears.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from controller.errors import CheckpointDamaged, StoreBusy
from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.packs import BAD, PACK_BYTES, SUFFIX, PackWriter, Place, Shelf
from controller.host.text import failed, sync_directory
from controller.model.checkpoint import Progress

WORTH_KEEPING: Final = 0.5
"""A pack of which less is alive is rewritten: the store is at most twice as large as what it has to hold."""


def sweep(depot: Depot, name: str, did: Progress) -> tuple[int, str]:
    """→ (bytes freed, why nothing could be swept). The caller holds the writer's lock. `name`: of new packs."""
    try:
        live = _live(depot)
    except CheckpointDamaged as error:
        return 0, f"nothing was swept, since it is not known what this one needs: {error}"
    try:
        with depot.sweeping():
            return _sweep(depot, live, name, did), ""
    except StoreBusy:
        return 0, "space is freed later: a checkpoint is being read"
    except OSError as error:
        raise failed(error, "sweeping", error.filename or depot.packs) from error


def _live(depot: Depot) -> set[bytes]:
    return {chunk for identity in depot.ids() for chunk in depot.chunks(identity)}


def _sweep(depot: Depot, live: set[bytes], name: str, did: Progress) -> int:
    shelf = Shelf(depot.packs, depot.codec)
    try:
        kept: dict[str, list[tuple[bytes, Place]]] = {}
        for chunk, place in shelf.chunks():
            if chunk in live:
                kept.setdefault(place.pack, []).append((chunk, place))
        sizes = {pack: os.path.getsize(f"{depot.packs}/{pack}") for pack in shelf.packs}
        dead = sizes.keys() - kept.keys()
        freed = sum(sizes[pack] for pack in dead)
        for pack in sorted(dead):  # first, for there may be no room to move the others
            _unlink(depot, pack)
            did("pack swept", sizes.pop(pack))
        poor = {pack for pack, size in sizes.items() if _alive(kept.get(pack, [])) < size * WORTH_KEEPING}
        moving = [each for pack in sorted(poor) for each in kept.get(pack, [])]
        written = _rewrite(depot, shelf, moving, name, did)
    finally:
        shelf.close()
    for pack in sorted(poor):
        _unlink(depot, pack)
        did("pack swept", sizes[pack])
    sync_directory(depot.packs)
    return freed + max(0, sum(sizes[pack] for pack in poor) - written)


def _unlink(depot: Depot, pack: str) -> None:
    os.unlink(f"{depot.packs}/{pack}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{depot.packs}/{pack}{BAD}")


def _alive(chunks: list[tuple[bytes, Place]]) -> int:
    return sum(place.stored for _, place in chunks)


def _rewrite(depot: Depot, shelf: Shelf, moving: list[tuple[bytes, Place]], name: str, did: Progress) -> int:
    """As they lie, sealed or not. They are there under their new pack's name before the old ones go."""
    pack: PackWriter | None = None
    count = written = 0

    def told(what: str) -> None:
        did("moved: " + what, 0)

    try:
        for chunk, place in moving:
            if pack is None:
                pack = PackWriter(depot.packs, f"{name}-s{count:05}{SUFFIX}", depot.codec)
                count += 1
            pack.add(chunk, shelf.stored(chunk), place.size)
            if pack.size >= PACK_BYTES:
                written += pack.publish(told)
                pack = None
        if pack is not None:
            written += pack.publish(told)
            pack = None
    finally:
        if pack is not None:
            pack.drop()
    if moving:
        sync_directory(depot.packs)
    return written
