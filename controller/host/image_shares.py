"""What images have in common is on the disk once, and in the page cache: the same file of two images is one inode.

`<images>/.shared/files/<key>` is a further name of a file in one or more roots, and `blobs/<digest>` a layer as it
came from its registry, which the next version of an image need not fetch again. Whoever runs from an image writes
into a layer of his own, so nobody writes into what is shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

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

    def share(self, tree: str, aside: str) -> list[Offer]:
        """Replace what an image here has, too, in a root that nobody has mounted. → what none has yet.

        Twice the same in one root stays two, since programs take one inode for one file (`cp a b`). `aside`: a free
        name on the same file system. Times of directories stay.
        """
        used, offers = set[str](), list[Offer]()
        for directory, files in _shareable(tree):
            before, changed = os.lstat(directory), False
            for path in files:
                key = _key(path)
                if key in used:
                    continue
                used.add(key)
                if self._link(key, os.lstat(path), aside):
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
            os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(f"{tree}{path}", kept, follow_symlinks=False)

    def missing(self, layers: Iterable[tuple[str, int]]) -> list[str]:
        """Those, of (digest, bytes), that are not here, or not whole."""
        return [digest for digest, size in layers if not self._is_here(digest, size)]

    def seed(self, layout: str, layers: Iterable[tuple[str, int]]) -> list[str]:
        """Put the layers that are here, (digest, bytes), where skopeo would put them. → which."""
        seeded = []
        for digest, size in layers:
            wanted = f"{layout}/blobs/sha256/{_bare(digest)}"
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                if self._is_here(digest, size):
                    os.makedirs(os.path.dirname(wanted), 0o700, exist_ok=True)
                    os.link(self._blob(digest), wanted, follow_symlinks=False)
                    seeded.append(digest)
        return seeded

    def keep(self, layout: str, layers: Iterable[str]) -> None:
        """For the next version. They need not be on disk: whoever unpacks them checks their digests."""
        for digest in layers:
            os.makedirs(self._blobs, 0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(f"{layout}/blobs/sha256/{_bare(digest)}", self._blob(digest), follow_symlinks=False)

    def drop(self, layers: Iterable[str]) -> None:
        for digest in layers:
            _remove(self._blob(digest))

    def give_room(self) -> bool:
        """Layers are only there to be quicker the next time. → whether any was there to go."""
        kept = _names(self._blobs)
        for each in kept:
            _remove(f"{self._blobs}/{each}")
        return bool(kept)

    def prune(self, layers: Collection[str]) -> None:
        """Remove files that no root has any more, and layers but those of images that are here."""
        for each in _names(self._blobs):
            if f"sha256:{each}" not in layers:
                _remove(f"{self._blobs}/{each}")
        for part in _names(self._files):
            for each in _names(f"{self._files}/{part}"):
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(f"{self._files}/{part}/{each}").st_nlink == 1:
                        _remove(f"{self._files}/{part}/{each}")
            _remove_directory(f"{self._files}/{part}")
        for directory in (self._files, self._blobs, self._root):
            _remove_directory(directory)

    def _link(self, key: str, own: os.stat_result, aside: str) -> bool:
        """Another name for the shared file; where it has as many as it can have (EMLINK), none."""
        try:
            os.link(self._kept(key), aside, follow_symlinks=False)
        except OSError:
            return False
        if os.lstat(aside).st_size == own.st_size:
            return True
        os.unlink(aside)
        return False

    def _is_here(self, digest: str, size: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.lstat(self._blob(digest)).st_size == size
        return False

    def _kept(self, key: str) -> str:
        return f"{self._files}/{key[:2]}/{key}"

    def _blob(self, digest: str) -> str:
        return f"{self._blobs}/{_bare(digest)}"


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


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:")
