"""File-system trees: what a writable layer or a volume holds, looked at while frozen, and made anew.

Nothing of a tree is followed: names are opened relative to their directory, symlinks are copied as what they are.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from controller.checkpoints.manifest import Entry, Piece
from controller.checkpoints.paths import check_tree, parent_of
from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.checkpoints.contents import Contents
from controller.host.removal import remove_deep
from controller.host.text import failed

DEEPEST: Final = 400
"""Directories that are open at once while looking."""
MOST_ENTRIES: Final = 1_000_000
MOST_BYTES: Final = 256 << 20
KEPT_XATTRS: Final = ("user.", "trusted.overlay.", "system.posix_acl_")
KEPT_XATTR_NAMES: Final = ("security.capability",)
_KINDS: Final = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "device",
    stat.S_IFBLK: "device", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})
_NODE_TYPES: Final = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A regular file that is open until the next entry; `extents`: (start, end) of what is no hole."""

    descriptor: int
    extents: Sequence[tuple[int, int]]


class Glance(Protocol):
    """Asked of whatever there is, before more of it is looked at than its name and its stat."""

    def passes(self, path: str, seen: os.stat_result) -> bool:
        """Whether it is passed over; a directory never is."""
        ...


def scan(
    root: str, glance: Glance | None = None, *, live: bool = False
) -> Iterator[tuple[Entry, TreeFile | None]]:
    """Read-only. Everything below and including `root` (path "."), directories before what is in them.

    `live`: somebody goes on working in it, so what is not there any more, or is something else, is passed over.
    OSErrors are the caller's to translate. Raises StepFailed where it is deeper, or holds more, than is taken.
    """
    kept = _Kept(root)
    for entry, file in _scan(root, glance, _GONE if live else frozenset()):
        kept.count(entry)
        yield entry, file


class _Kept:
    """What the entries of one tree come to: a container chooses how many there are, and what they are called."""

    def __init__(self, root: str) -> None:
        self._root, self._entries, self._bytes = root, 0, 0

    def count(self, entry: Entry) -> None:
        self._entries += 1
        self._bytes += sum(len(key) + len(value) for key, value in entry.xattrs.items()) + len(entry.path)
        if self._entries > MOST_ENTRIES or self._bytes > MOST_BYTES:
            raise StepFailed(
                f"{self._root}: more than {MOST_ENTRIES} files, or more than {MOST_BYTES >> 20} MiB of names and"
                " extended attributes, which is more than a checkpoint takes",
                path=self._root,
            )


def _scan(
    root: str, glance: Glance | None, passed_over: frozenset[int]
) -> Iterator[tuple[Entry, TreeFile | None]]:
    first_of: dict[tuple[int, int], str] = {}
    descriptor = os.open(root, _OPEN_DIRECTORY)
    waiting = [(descriptor, "", _names(descriptor))]
    yield _entry(".", os.fstat(descriptor), f"/proc/self/fd/{descriptor}"), None
    try:
        while waiting:
            directory, prefix, names = waiting[-1]
            name = next(names, None)
            if name is None:
                waiting.pop()
                os.close(directory)
                continue
            path = prefix + name
            try:
                found = _look_at(directory, name, path, glance, first_of)
            except OSError as error:
                if error.errno in passed_over:
                    continue
                raise
            if found is None:
                continue
            entry, opened = found
            if entry.kind == "directory":
                waiting.append((opened, path + "/", _names(opened)))
                if len(waiting) > DEEPEST:
                    raise StepFailed(
                        f"{root}: more than {DEEPEST} directories deep at {path[:200]}…", path=root
                    )
            try:
                yield entry, TreeFile(opened, _extents(opened, entry.size)) if entry.kind == "file" else None
            finally:
                if entry.kind == "file":
                    os.close(opened)
    finally:
        for directory, _, _ in waiting:
            os.close(directory)


def _look_at(
    directory: int, name: str, path: str, glance: Glance | None, first_of: dict[tuple[int, int], str]
) -> tuple[Entry, int] | None:
    """The entry, with a descriptor where it is a file or a directory; None: it is passed over."""
    seen = os.lstat(name, dir_fd=directory)
    several = seen.st_nlink > 1 and stat.S_ISREG(seen.st_mode)
    first = first_of.setdefault((seen.st_dev, seen.st_ino), path) if several else path
    if glance and glance.passes(path, seen) and not stat.S_ISDIR(seen.st_mode):
        return None
    if first != path:
        return Entry(path, "link", target=first), -1
    entry = _entry(path, seen, f"/proc/self/fd/{directory}/{name}")
    if entry.kind == "file":
        return replace(entry, size=seen.st_size), os.open(name, _OPEN_FILE, dir_fd=directory)
    return entry, os.open(name, _OPEN_DIRECTORY, dir_fd=directory) if entry.kind == "directory" else -1


def restore(root: str, entries: Sequence[Entry], contents: Contents) -> None:
    """Make a tree in `root`, which must be an empty directory or not be there. Raises StepFailed.

    Whatever the entries say, nothing outside of `root` is touched, and only what this call made is written to.
    """
    check_tree(entries)
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        descriptor = os.open(root, _OPEN_DIRECTORY)
        try:
            if os.listdir(descriptor):
                raise StepFailed(
                    f"{root} is not empty: nothing is restored over it", path=root, errno=errno.ENOTEMPTY
                )
            building = Building(descriptor)
            for entry in entries:
                if entry.path != ".":
                    building.make(entry, contents)
            building.finish(entries)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise failed(error, "restoring files below", root) from error


class Filler(Protocol):
    """Where the bytes of files come from."""

    def write(self, descriptor: int, size: int, pieces: tuple[Piece, ...]) -> None: ...


class Building:
    """A tree in the making below an open, empty directory that is the caller's. The caller has checked the names.

    Directories get their modes and times last: making what is in them would change those. OSErrors are raised.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._parent, self._parent_path = root, "."

    def make(self, entry: Entry, content: Filler) -> None:
        self._make(entry, os.path.basename(entry.path), self._enter(parent_of(entry.path)), content)

    def finish(self, entries: Sequence[Entry]) -> None:
        self._leave()
        for entry in reversed(entries):
            if entry.kind == "directory":
                self._finish_directory(entry)

    def remove(self, path: str) -> None:
        """Whatever is there, with all below it; no link on the way is followed."""
        self._leave()
        with contextlib.suppress(OSError):
            parent = syscalls.read_plain(self._root, parent_of(path))
            try:
                _remove(os.path.basename(path), parent)
            finally:
                os.close(parent)

    def holds(self, path: str) -> bool:
        """Whether there is a directory."""
        try:
            os.close(syscalls.read_plain(self._root, path))
        except OSError:
            return False
        return True

    def _enter(self, path: str) -> int:
        if path != self._parent_path:
            self._leave()
            if path != ".":
                self._parent = syscalls.read_plain(self._root, path)
                self._parent_path = path
        return self._parent

    def _leave(self) -> None:
        if self._parent != self._root:
            os.close(self._parent)
        self._parent, self._parent_path = self._root, "."

    def _make(self, entry: Entry, name: str, parent: int, content: Filler) -> None:
        if entry.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=parent)
        elif entry.kind == "file":
            self._file(entry, name, parent, content)
        elif entry.kind == "link":
            self._link(entry, name, parent)
        else:
            _special(entry, name, parent)
            _finish(entry, name, parent)

    def _file(self, entry: Entry, name: str, parent: int, content: Filler) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            content.write(descriptor, entry.size, entry.pieces)
        finally:
            os.close(descriptor)
        _finish(entry, name, parent)

    def _link(self, entry: Entry, name: str, parent: int) -> None:
        """To a regular file that this call made: `check_tree` has seen to it."""
        source = syscalls.read_plain(self._root, parent_of(entry.target))
        try:
            base = os.path.basename(entry.target)
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _finish_directory(self, entry: Entry) -> None:
        if entry.path == ".":
            _finish_open(entry, self._root)
            return
        descriptor = syscalls.read_plain(self._root, entry.path)
        try:
            _finish_open(entry, descriptor)
        finally:
            os.close(descriptor)


def _remove(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        remove_deep(f"/proc/self/fd/{parent}/{name}")


def _special(entry: Entry, name: str, parent: int) -> None:
    if entry.kind == "symlink":
        os.symlink(entry.target, name, dir_fd=parent)
    elif entry.kind == "device" and entry.device:
        letter, major, minor = entry.device
        os.mknod(name, _NODE_TYPES[letter] | 0o600, os.makedev(major, minor), dir_fd=parent)
    else:
        os.mknod(name, (stat.S_IFIFO if entry.kind == "fifo" else stat.S_IFSOCK) | 0o600, dir_fd=parent)


def _finish(entry: Entry, name: str, parent: int) -> None:
    """Owner first: changing it clears set-user-id bits and capabilities (chown(2), capabilities(7))."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if entry.kind != "symlink":
        os.chmod(name, entry.mode, dir_fd=parent)
    _set_xattrs(entry, f"/proc/self/fd/{parent}/{name}")
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _finish_open(entry: Entry, descriptor: int) -> None:
    os.fchown(descriptor, entry.uid, entry.gid)
    os.fchmod(descriptor, entry.mode)
    _set_xattrs(entry, f"/proc/self/fd/{descriptor}/.")
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _set_xattrs(entry: Entry, path: str) -> None:
    for key, value in entry.xattrs.items():
        if _kept(key):
            os.setxattr(path, key, base64.b64decode(value), follow_symlinks=False)


def _extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """lseek(2), SEEK_DATA: a file system that knows no holes says that all is data."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        found.append((start, at))
    return found


def _entry(path: str, seen: os.stat_result, by_descriptor: str) -> Entry:
    kind = _KINDS[stat.S_IFMT(seen.st_mode)]
    device = None
    if kind == "device":
        letter = "c" if stat.S_ISCHR(seen.st_mode) else "b"
        device = (letter, os.major(seen.st_rdev), os.minor(seen.st_rdev))
    return Entry(
        path, kind, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, _xattrs(by_descriptor),
        os.readlink(by_descriptor) if kind == "symlink" else "", device,
    )  # fmt: skip


def _xattrs(path: str) -> Mapping[str, str]:
    """Of masu's interest; others belong to the host (security labels) or to nobody."""
    found = {}
    path = path if "/" in path.removeprefix("/proc/self/fd/") else path + "/."
    with contextlib.suppress(OSError):  # a file system without extended attributes
        for key in os.listxattr(path, follow_symlinks=False):
            if _kept(key):
                found[key] = base64.b64encode(os.getxattr(path, key, follow_symlinks=False)).decode()
    return found


def _kept(key: str) -> bool:
    return key.startswith(KEPT_XATTRS) or key in KEPT_XATTR_NAMES


def _names(descriptor: int) -> Iterator[str]:
    return iter(sorted(os.listdir(descriptor)))
