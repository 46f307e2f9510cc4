"""What images have in common is on the disk once, and in the page cache: the same file of two images is one inode.

`<images>/.shared/files/<key>` is a further name of a file in one or more roots, and `blobs/<repository>/<digest>` a
layer as it came from there, which the next version of an image need not fetch again. Whoever runs from an image
writes into a layer of his own, so nobody writes into what is shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from controller.host.image_layout import blob_path

NAME: Final = ".shared"
LEAST: Final = 4096
"""Bytes: a smaller file saves less than its directory entry costs."""
OWN: Final = frozenset({"etc", "var", "root", "home", "run", "srv", "tmp"})
"""What is below these has one name: programs refuse data that has two (cron(8), logrotate(8))."""


class Offer(NamedTuple):
    """A file that the next image may share. `path`: in its root."""

    path: str
    key: str


class ImageShares:
    """Thread-safe, by links and renames alone: who is too late keeps a copy of his own. Raises OSError."""

    def __init__(self, images: str) -> None:
        self._root = f"{images}/{NAME}"
        self._files, self._blobs = f"{self._root}/files", f"{self._root}/blobs"

    def share(self, tree: str, aside: str, watch: Callable[[], None]) -> list[Offer]:
        """Replace what an image here has, too, in a root that nobody has mounted. → what none has yet.

        Twice the same in one root stays two, since programs take one inode for one file (`cp a b`). `aside`: a free
        name on the same file system. Times of directories stay. `watch` is called now and then, and may raise.
        """
        used, offers = set[str](), list[Offer]()
        for directory, files in _shareable(tree):
            watch()
            before, changed = os.lstat(directory), False
            for path in files:
                key = _key(path)
                if key in used:
                    continue
                used.add(key)
                if self._link(key, aside):
                    os.rename(aside, path)
                    changed = True
                else:
                    offers.append(Offer(path.removeprefix(tree), key))
            if changed:
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
        return offers

    def offer(self, tree: str, offers: Iterable[Offer]) -> None:
        """Let others share them from now on. They are on disk: a name must not be there before its content."""
        for path, key in offers:
            kept = self._kept(key)
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
                os.link(f"{tree}{path}", kept, follow_symlinks=False)

    def missing(self, origin: str, layers: Iterable[tuple[str, int]]) -> list[str]:
        """Those, of (digest, bytes), that are not here, or not whole."""
        return [digest for digest, size in layers if not self._is_here(origin, digest, size)]

    def seed(self, origin: str, layout: str, layers: Iterable[tuple[str, int]]) -> list[str]:
        """Put the layers that are here, (digest, bytes), where skopeo would put them. → which.

        `origin`: REGISTRY/REPOSITORY. What came from one is not given to another, which may only know the digest.
        """
        seeded = []
        for digest, size in layers:
            wanted = blob_path(layout, digest)
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                if self._is_here(origin, digest, size):
                    os.makedirs(os.path.dirname(wanted), 0o700, exist_ok=True)
                    os.link(self._blob(origin, digest), wanted, follow_symlinks=False)
                    seeded.append(digest)
        return seeded

    def keep(self, origin: str, layout: str, layers: Iterable[str]) -> None:
        """For the next version. They need not be on disk: whoever unpacks them checks their digests."""
        for digest in layers:
            kept = self._blob(origin, digest)
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
                os.link(blob_path(layout, digest), kept, follow_symlinks=False)

    def drop(self, origin: str, layers: Iterable[str]) -> None:
        for digest in layers:
            _remove(self._blob(origin, digest))

    def give_room(self) -> bool:
        """Layers are only there to be quicker the next time. → whether any was there to go."""
        before = _names(self._blobs)
        self._drop_but(())
        return bool(before)

    def prune(self, layers: Collection[str]) -> None:
        """Remove files that no root has any more, and layers but those of images that are here."""
        self._drop_but(layers)
        for part in _names(self._files):
            for each in _names(f"{self._files}/{part}"):
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(f"{self._files}/{part}/{each}").st_nlink == 1:
                        _remove(f"{self._files}/{part}/{each}")
            _remove_directory(f"{self._files}/{part}")
        for directory in (self._files, self._blobs, self._root):
            _remove_directory(directory)

    def _drop_but(self, layers: Collection[str]) -> None:
        for part in _names(self._blobs):
            for each in _names(f"{self._blobs}/{part}"):
                if each not in layers:
                    _remove(f"{self._blobs}/{part}/{each}")
            _remove_directory(f"{self._blobs}/{part}")

    def _link(self, key: str, aside: str) -> bool:
        """Another name for the shared file; where it has as many as it can have (EMLINK), none.

        One that is not any more what it was is given to nobody else: what was just unpacked is known to be right.
        """
        kept = self._kept(key)
        try:
            if _key(kept) != key:
                os.unlink(kept)
                return False
            os.link(kept, aside, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _is_here(self, origin: str, digest: str, size: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.lstat(self._blob(origin, digest)).st_size == size
        return False

    def _kept(self, key: str) -> str:
        return f"{self._files}/{key[:2]}/{key}"

    def _blob(self, origin: str, digest: str) -> str:
        return f"{self._blobs}/{hashlib.sha256(origin.encode()).hexdigest()}/{digest}"


def _shareable(tree: str) -> Iterator[tuple[str, list[str]]]:
    """Directories of a root, each with its regular files that have one name and are large enough."""
    waiting = [tree]
    while waiting:
        directory, files = waiting.pop(), []
        with os.scandir(directory) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    if directory != tree or each.name not in OWN:
                        waiting.append(each.path)
                elif each.is_file(follow_symlinks=False):
                    seen = each.stat(follow_symlinks=False)
                    if seen.st_size >= LEAST and seen.st_nlink == 1:
                        files.append(each.path)
        yield directory, files


def _key(path: str) -> str:
    """Of all that is one with an inode: content, owner, mode, time and attributes."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        seen = os.fstat(file.fileno())
        content = hashlib.file_digest(file, "sha256").digest()
        attributes = sorted((name, os.getxattr(file.fileno(), name)) for name in os.listxattr(file.fileno()))
    traits = (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, attributes)
    return hashlib.sha256(content + repr(traits).encode()).hexdigest()


def _names(directory: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(directory)
    return []


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _remove_directory(path: str) -> None:
    """Unless something is in it."""
    with contextlib.suppress(OSError):
        os.rmdir(path)
