"""Taking an archive in: what it holds is looked at member by member and written below a directory of our own.

No name of the archive is opened as a path: images are plain names in one directory, and trees are made as `trees`
makes them. Its mounts, devices, hooks and annotations are kept as text (spec.dump) and never followed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final

from controller.checkpoints import archive, tar
from controller.checkpoints.manifest import Entry, Piece
from controller.checkpoints.paths import check_tree, is_path, parent_of
from controller.errors import ArchiveRefused, CheckpointDamaged
from controller.host.checkpoints.depot import IMPORTING
from controller.host.checkpoints.trees import Building
from controller.host.text import failed
from controller.model.checkpoint import Draft, Origin
from controller.model.names import quote

BLOCK: Final = 1 << 20
MOST_BLOCKS_AFTER: Final = 16
LARGEST_WINDOW: Final = 128 << 20
"""Memory that a zstd stream may ask for."""
KEPT_XATTRS: Final = ("user.", "system.posix_acl_")


@contextlib.contextmanager
def importing(
    path: str, root: str, origin: Origin, digest: Callable[[], Any], *, foreign: bool
) -> Iterator[Draft]:
    """An archive as a draft, which is gone afterwards. The caller holds the writer's lock.

    `origin`: what is known here, of which an archive of masu's own fills in the rest. `foreign`: archives that were
    made by others are taken, too. Raises ArchiveRefused, StepFailed.
    """
    scratch = f"{root}/{IMPORTING}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        os.makedirs(f"{scratch}/images", 0o700)
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            taken = _Taking(scratch, _room(root)).take(_Stream(_expanded(file), path, digest))
        yield _draft(taken, scratch, origin, foreign=foreign)
    except OSError as error:
        raise failed(error, "importing", error.filename or path) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _draft(taken: _Taken, scratch: str, origin: Origin, *, foreign: bool) -> Draft:
    own = archive.parse_own(taken.texts.get(archive.OWN))
    if own is None and not foreign:
        raise ArchiveRefused("not made by masu: the node's policy does not allow foreign archives")
    if own is not None:
        archive.check_sums(taken.texts.get(archive.SUMS), taken.sums)
    if not taken.images:
        raise ArchiveRefused("there are no images in it")
    known = replace(own, container=origin.container, how="imported") if own else replace(origin, foreign=True)
    extras = {name: text for name, text in taken.texts.items() if name in archive.EXTRAS}
    return Draft(known, f"{scratch}/images", dict(taken.trees), extras)


def _room(root: str) -> int:
    """No archive may take more than half of what is free: it is stored a second time before it is gone."""
    seen = os.statvfs(root)
    return min(archive.LARGEST_IMPORT, seen.f_bavail * seen.f_frsize // 2)


def _expanded(file: IO[bytes]) -> Any:
    """By what it begins with, whatever its name says."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic == b"\x28\xb5\x2f\xfd":
        import zstandard  # noqa: PLC0415 - with the packages that only checkpoints need

        return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).stream_reader(
            file, read_across_frames=True
        )
    return file


class _Stream:
    """Reads exactly, and turns what a decompressor complains of into one kind of refusal."""

    def __init__(self, source: Any, path: str, digest: Callable[[], Any]) -> None:
        self._source, self._path, self._new_digest = source, path, digest
        self._digest = digest()

    def begin(self) -> None:
        """What is read from here on is one member's."""
        self._digest = self._new_digest()

    def sum(self) -> str:
        digest: str = self._digest.hexdigest()
        return digest

    def end(self) -> None:
        """Nothing but zeros may follow; a compressed stream checks itself at its end."""
        for _ in range(MOST_BLOCKS_AFTER):
            rest = self.read(BLOCK)
            if rest.strip(b"\0"):
                raise ArchiveRefused("something follows the end of the archive")
            if len(rest) < BLOCK:
                return
        raise ArchiveRefused("the archive does not end")

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        got = b"".join(parts)
        self._digest.update(got)
        return got

    def _some(self, size: int) -> bytes:
        try:
            part: bytes = self._source.read(size)
        except OSError:
            raise
        except Exception as error:  # zlib.error, EOFError, ZstdError: one module each
            raise ArchiveRefused(f"{self._path}: cannot be decompressed: {error}") from error
        return part


@dataclass(slots=True)
class _Taken:
    images: set[str] = field(default_factory=set)
    sums: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    trees: dict[str, str] = field(default_factory=dict)


class _Taking:
    def __init__(self, scratch: str, room: int) -> None:
        self._scratch, self._room = scratch, room
        self._taken = _Taken()
        self._seen: set[tuple[str, str]] = set()
        self._layers: dict[str, _Layer] = {}

    def take(self, stream: _Stream) -> _Taken:
        try:
            for member in tar.members(stream.read, archive.MOST_MEMBERS):
                self._member(member, stream)
            stream.end()
            deleted = archive.parse_deleted(self._taken.texts.get(archive.DELETED))
            if deleted and archive.UPPER not in self._layers:
                self._layer(archive.UPPER)
            for name, layer in self._layers.items():
                layer.finish(deleted if name == archive.UPPER else ())
        finally:
            for layer in self._layers.values():
                layer.close()
        return self._taken

    def _member(self, member: tar.Member, stream: _Stream) -> None:
        kind, name = archive.role(member.name, directory=member.kind == "directory")
        if kind == "directory":
            return
        if member.kind != "file":
            raise ArchiveRefused(f"{quote(member.name)}: a {member.kind}; only regular files belong here")
        if (kind, name) in self._seen and kind != "ignored":
            raise ArchiveRefused(f"{quote(member.name)}: comes twice")
        self._seen.add((kind, name))
        self._use_room(member)
        stream.begin()
        if kind == "image":
            self._image(name, member.size, stream)
        elif kind == "tree":
            self._layer(name).read(_Bounded(stream, member.size))
        elif kind == "ignored":
            _copy(stream, member.size, None)
        else:
            self._taken.texts[name] = _text(member, stream)
        if kind not in {"ignored", "sums"}:
            self._taken.sums[member.name.removeprefix("./")] = stream.sum()
        _exactly(stream, tar.padding(member.size))

    def _use_room(self, member: tar.Member) -> None:
        self._room -= member.size
        if self._room < 0:
            raise ArchiveRefused(f"{quote(member.name)}: larger than there is room for on this host")

    def _image(self, name: str, size: int, stream: _Stream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(f"{self._scratch}/images/{name}", flags, 0o600)
        try:
            _copy(stream, size, descriptor)
        finally:
            os.close(descriptor)
        self._taken.images.add(name)

    def _layer(self, name: str) -> _Layer:
        path = f"{self._scratch}/tree-{len(self._layers)}"
        self._layers[name] = _Layer(path)
        self._taken.trees[name] = path
        return self._layers[name]


class _Layer:
    """One tree out of an archive, made in an empty directory as its members come."""

    def __init__(self, path: str) -> None:
        os.mkdir(path, 0o700)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._building = Building(self._root)
        self._entries: dict[str, Entry] = {".": Entry(".", "directory", 0o755)}

    def read(self, stream: _Bounded) -> None:
        """What is inside takes no more room than the tar around it, which was counted."""
        for member in tar.members(stream.read, archive.MOST_MEMBERS):
            entry = _entry(member)
            base = os.path.basename(entry.path)
            if base == archive.OPAQUE:
                self._mark_opaque(parent_of(entry.path))
            elif base.startswith(archive.WHITEOUT):
                self._white_out(
                    f"{parent_of(entry.path)}/{base.removeprefix(archive.WHITEOUT)}".removeprefix("./")
                )
            else:
                self._add(entry, stream)
            if base.startswith(archive.WHITEOUT):
                _copy(stream, member.size, None)
            _exactly(stream, tar.padding(member.size))
        stream.drain()

    def finish(self, deleted: tuple[str, ...]) -> None:
        for path in deleted:
            if path not in self._entries:
                self._white_out(path)
        self._building.finish(list(self._entries.values()))

    def close(self) -> None:
        os.close(self._root)

    def _add(self, entry: Entry, stream: _Bounded) -> None:
        if entry.path == "." or (entry.kind == "directory" and self._is_directory(entry.path)):
            self._entries[entry.path] = entry  # what was only assumed of it before
            return
        self._make(entry, _FromStream(stream))

    def _make(self, entry: Entry, content: _FromStream | None) -> None:
        self._make_parents(entry.path)
        try:
            check_tree([*self._around(entry), entry])
        except CheckpointDamaged as error:
            raise ArchiveRefused(str(error)) from error
        self._building.make(entry, content or _FromStream(None))
        self._entries[entry.path] = entry

    def _around(self, entry: Entry) -> Iterator[Entry]:
        """What the rules of a tree have to know of for one more entry: its directories, and what it links to."""
        yield self._entries["."]
        parts = entry.path.split("/")
        for count in range(1, len(parts) + 1):
            known = self._entries.get("/".join(parts[:count]))
            if known is not None:
                yield known
        linked = self._entries.get(entry.target) if entry.kind == "link" else None
        if linked is not None and linked.kind == "file":
            yield from (
                each for each in self._directories(linked.path) if each.path not in parts_of(entry.path)
            )
            yield linked

    def _directories(self, path: str) -> Iterator[Entry]:
        return (self._entries[each] for each in parts_of(path) if each in self._entries)

    def _make_parents(self, path: str) -> None:
        for above in parts_of(path):
            if above not in self._entries:
                self._make(Entry(above, "directory", 0o755), None)

    def _is_directory(self, path: str) -> bool:
        known = self._entries.get(path)
        return known is not None and known.kind == "directory"

    def _white_out(self, path: str) -> None:
        if not is_path(path):
            raise ArchiveRefused(f"{quote(path)}: not a plain relative path")
        self._make(Entry(path, "device", 0o000, device=("c", 0, 0)), None)

    def _mark_opaque(self, path: str) -> None:
        self._make_parents(path + "/x")
        known = self._entries.get(path)
        if known is None or known.kind != "directory":
            raise ArchiveRefused(f"{quote(path)}: marked as opaque, but no directory")
        xattrs = {**known.xattrs, "trusted.overlay.opaque": base64.b64encode(b"y").decode()}
        self._entries[path] = replace(known, xattrs=xattrs)


class _Bounded:
    """The part of a stream that is one member: a tar inside a tar cannot read beyond its end."""

    def __init__(self, stream: _Stream, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int) -> bytes:
        got = self._stream.read(min(size, self._left))
        self._left -= len(got)
        return got

    def drain(self) -> None:
        while self._left:
            if not self.read(min(self._left, BLOCK)):
                raise ArchiveRefused("the archive ends in the middle")


class _FromStream:
    """What a file of a tree is filled from, in place of pieces."""

    def __init__(self, stream: _Bounded | None) -> None:
        self._stream = stream

    def write(self, descriptor: int, size: int, pieces: tuple[Piece, ...]) -> None:
        del pieces
        if self._stream is not None:
            _copy(self._stream, size, descriptor)


def parts_of(path: str) -> list[str]:
    """Every directory above: a/b/c → a, a/b."""
    names = path.split("/")[:-1]
    return ["/".join(names[:count]) for count in range(1, len(names) + 1)]


def _entry(member: tar.Member) -> Entry:
    path = member.name.removeprefix("./").strip("/") or "."
    if path != "." and not is_path(path):
        raise ArchiveRefused(f"{quote(member.name)}: not a plain relative path")
    if member.name.startswith("/"):
        raise ArchiveRefused(f"{quote(member.name)}: an absolute path")
    target = member.target.removeprefix("./").lstrip("/") if member.kind == "link" else member.target
    return Entry(
        path, member.kind, member.mode, member.uid, member.gid, member.mtime_ns, _xattrs(member.xattrs), target,
        None, member.size,
    )  # fmt: skip


def _xattrs(found: Mapping[str, bytes]) -> Mapping[str, str]:
    """None that overlayfs would follow elsewhere, and no capabilities: those come from the root file system."""
    return {
        key: base64.b64encode(value).decode() for key, value in found.items() if key.startswith(KEPT_XATTRS)
    }


def _text(member: tar.Member, stream: _Stream) -> bytes:
    if member.size > archive.LARGEST_TEXT:
        raise ArchiveRefused(
            f"{quote(member.name)}: {member.size} bytes, at most {archive.LARGEST_TEXT} are read"
        )
    return _exactly(stream, member.size)


def _exactly(stream: _Stream | _Bounded, size: int) -> bytes:
    got = stream.read(size)
    if len(got) != size:
        raise ArchiveRefused("the archive ends in the middle")
    return got


def _copy(stream: _Stream | _Bounded, size: int, descriptor: int | None) -> None:
    """Zeros become holes."""
    while size:
        data = stream.read(min(size, BLOCK))
        if not data:
            raise ArchiveRefused("the archive ends in the middle")
        size -= len(data)
        if descriptor is not None:
            _write(descriptor, data)


def _write(descriptor: int, data: bytes) -> None:
    if not data.strip(b"\0"):
        os.ftruncate(descriptor, os.lseek(descriptor, len(data), os.SEEK_CUR))
        return
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
