"""Layers out of archives: each entry is checked against the tree so far, and made beneath a place of our own."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from controller.checkpoints import archive, tar
from controller.checkpoints.manifest import Entry, Piece
from controller.checkpoints.paths import check_tree, is_path, parent_of, wrong_values
from controller.errors import ArchiveRefused, CheckpointDamaged
from controller.host.checkpoints.streams import Bounded, copy, exactly
from controller.host.checkpoints.trees import Building
from controller.model.names import quote

KEPT_XATTRS: Final = ("user.", "system.posix_acl_")


class Layer:
    """One tree out of an archive, made in an empty directory as its members come."""

    def __init__(self, path: str) -> None:
        os.mkdir(path, 0o700)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._building = Building(self._root)
        self._entries: dict[str, Entry] = {".": Entry(".", "directory", 0o755)}

    def read(self, stream: Bounded) -> None:
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
                copy(stream, member.size, None)
            exactly(stream, tar.padding(member.size))
        stream.drain()

    def finish(self, deleted: tuple[str, ...]) -> None:
        for path in deleted:
            if path not in self._entries:
                self._white_out(path)
        self._building.finish(list(self._entries.values()))

    def close(self) -> None:
        os.close(self._root)

    def _add(self, entry: Entry, stream: Bounded) -> None:
        if entry.kind == "directory" and self._is_directory(entry.path):
            wrong = wrong_values(entry)
            if wrong:
                raise ArchiveRefused(f"{quote(entry.path)}: {wrong}")
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
        xattrs = {**known.xattrs, archive.OPAQUE_XATTR: base64.b64encode(b"y").decode()}
        self._entries[path] = replace(known, xattrs=xattrs)


class _FromStream:
    """What a file of a tree is filled from, in place of pieces."""

    def __init__(self, stream: Bounded | None) -> None:
        self._stream = stream

    def write(self, descriptor: int, size: int, pieces: tuple[Piece, ...]) -> None:
        del pieces
        if self._stream is not None:
            copy(self._stream, size, descriptor)


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
