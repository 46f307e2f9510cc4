"""The CheckpointStore port in a local directory: packs of chunks, and a manifest per checkpoint, published last."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from controller.checkpoints.manifest import Entry, Manifest, Piece
from controller.checkpoints.paths import is_id, is_name
from controller.checkpoints.users import Moves
from controller.errors import CheckpointDamaged, MasuError, StepFailed
from controller.host.checkpoints import trees
from controller.host.checkpoints.codec import Codec, read_key
from controller.host.checkpoints.contents import Contents
from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.packs import Shelf
from controller.host.checkpoints.saving import Saving
from controller.host.checkpoints.sweep import sweep
from controller.host.syscalls import free_bytes
from controller.host.text import failed, sync_directory
from controller.model.checkpoint import Checkpoint, Draft, Origin, Progress, Removal

PATIENCE_S: Final = 600.0
"""How long one waits for another writer: as long as storing a large checkpoint may take."""


class LocalStore:
    """`key_file`: path of the secret that seals new checkpoints and opens old ones; empty for none."""

    def __init__(self, root: str, key_file: str) -> None:
        self._root, self._key_file = root, key_file

    def checkpoints(self, container: str) -> tuple[Checkpoint, ...]:
        """Oldest first; of all containers for "". Heads alone are read; `damage` says what that showed."""
        if not os.path.isdir(self._root):
            return ()
        return self._depot(key=False).heads(container)

    def save(self, draft: Draft, min_free: int, did: Progress) -> Checkpoint:
        depot = self._depot(key=True)
        with depot.writing():
            return self._save(depot, draft, min_free, did)

    def verify(self, identity: str) -> tuple[str, ...]:
        """Everything that is wrong with it, read and checked to the last byte; nothing means whole."""
        depot = self._depot_of(identity)
        with depot.reading():
            try:
                found = depot.manifest(identity)
            except CheckpointDamaged as error:
                return (str(error),)
            with _opened(depot, found) as contents:
                return _wrong(found, contents)

    def restore(
        self,
        identity: str,
        images: str,
        roots: Mapping[str, str],
        did: Progress,
        moves: Mapping[str, Moves] | None = None,
    ) -> Checkpoint:
        depot = self._depot_of(identity)
        with depot.reading():
            found = depot.manifest(identity)
            unknown = sorted(set(roots) - set(found.checkpoint.trees))
            if unknown:
                raise StepFailed(f"{identity} has no snapshot named {', '.join(unknown)}")
            with _opened(depot, found) as contents:
                _check_room(
                    self._root, (entry for name in roots for entry in found.body.trees[name]), contents
                )
                _materialise(found, images, contents, did)
                for name, root in roots.items():
                    move = (moves or {}).get(name, Moves()).entry
                    trees.restore(root, tuple(map(move, found.body.trees[name])), contents)
                    did("snapshot", 0)
            return found.checkpoint

    def remove(self, identities: Collection[str], did: Progress) -> Removal:
        """Manifests first, then what only they needed; with none to remove it only sweeps."""
        depot = self._depot(key=False)
        if not os.path.isdir(self._root):
            return Removal((), 0)
        with depot.writing():
            removed = tuple(each for each in sorted(identities) if _unlink(depot, each))
            did("manifests removed", len(removed))
            freed, kept = sweep(depot, _new_id(depot, time.time_ns() // 1_000_000), did)
        return Removal(removed, freed, kept)

    def export_to(self, identity: str, path: str) -> tuple[str, ...]:
        from controller.host.checkpoints.export import export  # noqa: PLC0415 - brings tarfile along

        depot = self._depot_of(identity)
        with depot.reading():
            found = depot.manifest(identity)
            with _opened(depot, found) as contents:
                return export(found, contents, path, self._root, depot.codec.running_digest)

    def text(self, identity: str, name: str) -> bytes | None:
        """One of the small texts that are kept with it; None: it has none of that name."""
        depot = self._depot_of(identity)
        with depot.reading():
            found = depot.manifest(identity)
            pieces = next((each.pieces for each in found.body.extras if each.name == name), None)
            if pieces is None:
                return None
            with _opened(depot, found) as contents:
                return contents.whole(pieces)

    def import_from(
        self, path: str, origin: Origin, foreign: bool, min_free: int, did: Progress
    ) -> Checkpoint:
        from controller.host.checkpoints.imports import importing  # noqa: PLC0415 - brings tarfile along

        depot = self._depot(key=True)
        with (
            depot.writing(),
            importing(path, self._root, origin, depot.codec.running_digest, foreign=foreign) as draft,
        ):
            return self._save(depot, draft, min_free, did)

    def _save(self, depot: Depot, draft: Draft, min_free: int, did: Progress) -> Checkpoint:
        wrong = [each for each in (*draft.extras, *draft.trees) if not is_name(each)]
        if wrong:
            raise StepFailed(f"{wrong[0]!r} is no name for an extra file or a snapshot")
        identity = _new_id(depot, draft.origin.created_ms)
        return Saving(depot, identity, min_free, _last(depot, draft.origin.container), did).save(draft)

    def _depot_of(self, identity: str) -> Depot:
        """With the key only where it is needed: what was stored before there was one stays readable."""
        if not is_id(identity):
            raise StepFailed(f"{identity!r} is no checkpoint's id")
        plain = self._depot(key=False)
        head = plain.head(identity)
        return self._depot(key=True) if head and head.key else plain

    def _depot(self, *, key: bool) -> Depot:
        secret = read_key(self._key_file) if key and self._key_file else None
        return Depot(self._root, Codec(secret), PATIENCE_S)


def _new_id(depot: Depot, now_ms: int) -> str:
    """After every other, also when the clock was set back: the order of ids is that of publication."""
    from secrets import token_hex  # noqa: PLC0415 - brings hmac and random along

    stamp = _stamp(now_ms)
    newest = max((each for each in depot.ids() if is_id(each)), default="")
    while f"{stamp}-" <= newest:
        now_ms = _after(newest)
        stamp = _stamp(now_ms)
    return f"{stamp}-{token_hex(4)}"


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds)) + f"-{rest:03}"


def _after(identity: str) -> int:
    import calendar  # noqa: PLC0415 - only when the clock was set back

    day, clock, rest, _ = identity.split("-")
    return calendar.timegm(time.strptime(day + clock, "%Y%m%d%H%M%S")) * 1000 + int(rest) + 1


def _last(depot: Depot, container: str) -> Manifest | None:
    """The newest usable one of the same container, to compare with; none is no reason to stop."""
    for identity in reversed(depot.ids()):
        head = depot.head(identity)
        if head and head.container == container and head.key == depot.codec.key_id:
            try:
                return depot.manifest(identity)
            except MasuError:
                continue
    return None


@contextlib.contextmanager
def _opened(depot: Depot, found: Manifest) -> Iterator[Contents]:
    """The caller reads."""
    with (
        contextlib.closing(Shelf(depot.packs, depot.codec)) as shelf,
        contextlib.closing(Contents(found, shelf, depot.codec)) as contents,
    ):
        yield contents


def _wrong(found: Manifest, contents: Contents) -> tuple[str, ...]:
    files = [(each.name, each.size, each.pieces) for each in (*found.body.images, *found.body.extras)]
    for tree, entries in found.body.trees.items():
        files += [(f"{tree}/{each.path}", each.size, each.pieces) for each in entries if each.kind == "file"]
    said = [f"{name}: {wrong}" for name, _, pieces in files for wrong in contents.check(pieces)]
    short = [name for name, size, pieces in files if sum(map(contents.size_of, pieces)) != size]
    return (*said, *(f"{name}: its pieces do not make its size" for name in short))


def _check_room(root: str, entries: Iterable[Entry], contents: Contents) -> None:
    """A disk that becomes full under an image is an I/O error for everybody who writes to images on it."""
    needed = sum(contents.size_of(each) for entry in entries for each in entry.pieces if not _is_hole(each))
    free = free_bytes(root)
    if needed > free:
        raise StepFailed(
            f"its files take {needed} bytes beside those that are there, and {free} are free: {root}",
            path=root,
            errno=errno.ENOSPC,
        )


def _is_hole(piece: Piece) -> bool:
    return isinstance(piece, int) and piece < 0


def _materialise(found: Manifest, directory: str, contents: Contents, did: Progress) -> None:
    """CRIU's image directory, made anew: empty or absent before."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        if os.listdir(directory):
            raise StepFailed(f"{directory} is not empty", path=directory, errno=errno.ENOTEMPTY)
        for each in found.body.images:
            if not is_name(each.name):
                raise CheckpointDamaged(f"{each.name!r} is no name for an image")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(f"{directory}/{each.name}", flags, 0o600)
            try:
                contents.write(descriptor, each.size, each.pieces)
            finally:
                os.close(descriptor)
            did("image", each.size)
    except OSError as error:
        raise failed(error, "writing images to", error.filename or directory) from error


def _unlink(depot: Depot, identity: str) -> bool:
    """Durably, so that no power cut brings it back after its chunks have gone."""
    if not is_id(identity):
        raise StepFailed(f"{identity!r} is no checkpoint's id")
    try:
        os.unlink(depot.path(identity))
        sync_directory(depot.manifests)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failed(error, "removing", depot.path(identity)) from error
    return True
