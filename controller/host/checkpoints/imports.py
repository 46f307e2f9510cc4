"""Taking an archive in: what it holds is looked at member by member and written below a directory of our own.

No name of the archive is opened as a path: images are plain names in one directory, and trees are made as `trees`
makes them. Its mounts, devices, hooks and annotations are kept as text (spec.dump) and never followed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final

from controller.checkpoints import archive, tar
from controller.errors import ArchiveRefused
from controller.host.checkpoints.depot import IMPORTING
from controller.host.checkpoints.layers import Layer
from controller.host.checkpoints.streams import Bounded, Stream, copy, exactly
from controller.host.syscalls import free_bytes
from controller.host.text import failed, make_private
from controller.model.checkpoint import UPPER, Draft, Origin
from controller.model.names import check_name, quote

LARGEST_WINDOW: Final = 128 << 20
"""Memory that a zstd stream may ask for."""


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
        make_private(root)
        make_private(scratch)
        os.mkdir(f"{scratch}/images", 0o700)
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            taken = _Taking(scratch, _room(root)).take(Stream(_expanded(file), path, digest))
        yield _draft(taken, scratch, origin, foreign=foreign)
    except OSError as error:
        raise failed(error, "importing", error.filename or path) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _draft(taken: _Taken, scratch: str, origin: Origin, *, foreign: bool) -> Draft:
    own = archive.parse_own(taken.texts.get(archive.OWN))
    if (own is None or own.foreign) and not foreign:
        raise ArchiveRefused(
            "not made by masu: only a host whose policy lists foreign (rule checkpoints) takes such archives"
        )
    if own is None and not origin.container:
        raise ArchiveRefused("not made by masu: say of which container it is to be, --as NAME")
    if own is not None:
        archive.check_sums(taken.texts.get(archive.SUMS), taken.sums)
    if not taken.images:
        raise ArchiveRefused("there are no images in it")
    known = _here(own, origin) if own else replace(origin, foreign=True)
    extras = {name: text for name, text in taken.texts.items() if name in archive.EXTRAS}
    return Draft(known, f"{scratch}/images", dict(taken.trees), extras)


def _here(own: Origin, origin: Origin) -> Origin:
    """What an archive says of itself, but that it is of no later than now: all later ids come after its own."""
    created_ms = min(own.created_ms, origin.created_ms)
    return replace(
        own, container=origin.container or _checked_name(own), created_ms=created_ms, how="imported"
    )


def _checked_name(own: Origin) -> str:
    try:
        return check_name(own.container)
    except ValueError as error:
        raise ArchiveRefused(str(error)) from error


def _room(root: str) -> int:
    """No archive may take more than half of what is free: it is stored a second time before it is gone."""
    return min(archive.LARGEST_IMPORT, free_bytes(root) // 2)


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
        self._layers: dict[str, Layer] = {}

    def take(self, stream: Stream) -> _Taken:
        try:
            for member in tar.members(stream.read, archive.MOST_MEMBERS):
                self._member(member, stream)
            stream.end()
            deleted = archive.parse_deleted(self._taken.texts.get(archive.DELETED))
            if deleted and UPPER not in self._layers:
                self._layer(UPPER)
            for name, layer in self._layers.items():
                layer.finish(deleted if name == UPPER else ())
        finally:
            for layer in self._layers.values():
                layer.close()
        return self._taken

    def _member(self, member: tar.Member, stream: Stream) -> None:
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
            self._layer(name).read(Bounded(stream, member.size))
        elif kind == "shm":
            _check_empty(member, Bounded(stream, member.size))
        elif kind == "ignored":
            copy(stream, member.size, None)
        else:
            self._taken.texts[name] = _text(member, stream)
        if kind not in {"ignored", "sums", "shm"}:
            self._taken.sums[member.name.removeprefix("./")] = stream.sum()
        exactly(stream, tar.padding(member.size))

    def _use_room(self, member: tar.Member) -> None:
        self._room -= member.size
        if self._room < 0:
            raise ArchiveRefused(f"{quote(member.name)}: larger than there is room for on this host")

    def _image(self, name: str, size: int, stream: Stream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(f"{self._scratch}/images/{name}", flags, 0o600)
        try:
            copy(stream, size, descriptor)
        finally:
            os.close(descriptor)
        self._taken.images.add(name)

    def _layer(self, name: str) -> Layer:
        path = f"{self._scratch}/tree-{len(self._layers)}"
        self._layers[name] = Layer(path)
        self._taken.trees[name] = path
        return self._layers[name]


def _check_empty(member: tar.Member, stream: Bounded) -> None:
    """Files in a mount that masu makes anew would be lost, and whoever has them open with them."""
    for inner in tar.members(stream.read, archive.MOST_MEMBERS):
        if inner.name.strip("./"):
            raise ArchiveRefused(
                f"{quote(member.name)}: there was {quote(inner.name)} in /dev/shm, which is not taken from archives"
            )
    stream.drain()


def _text(member: tar.Member, stream: Stream) -> bytes:
    if member.size > archive.LARGEST_TEXT:
        raise ArchiveRefused(
            f"{quote(member.name)}: {member.size} bytes, at most {archive.LARGEST_TEXT} are read"
        )
    return exactly(stream, member.size)
