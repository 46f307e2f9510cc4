"""Reading tar archives of strangers: headers only, no name is ever taken for a place to write to. Pure.

tarfile's own reader takes as much memory as a header asks for, and knows forms that have no business here. Read are
ustar, pax (path, linkpath, size, mtime, xattrs) and GNU long names. tar(5); POSIX pax, "pax Interchange Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field

from controller.errors import ArchiveRefused
from controller.frozen import dataclass
from controller.model.names import quote

BLOCK = 512
LARGEST_HEADER = 1 << 20
LATEST_S = 1 << 33
"""The year 2242; what ext4 can hold ends later."""
KINDS: Mapping[bytes, str] = {
    b"0": "file", b"\0": "file", b"1": "link", b"2": "symlink", b"5": "directory", b"6": "fifo",
}  # fmt: skip
XATTR = "SCHILY.xattr."

Read = Callable[[int], bytes]
"""Exactly so many bytes, or fewer at the end."""


@dataclass(frozen=True, slots=True)
class Member:
    """`kind`: file, link, symlink, directory or fifo; `size`: bytes of content that follow."""

    name: str
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: str
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def members(read: Read, most: int) -> Iterator[Member]:
    """Each member; whoever takes one reads its `size` bytes and then `padding(size)` before the next.

    Raises ArchiveRefused for devices, sparse files, unknown kinds, damaged headers, and more than `most` members.
    """
    more: dict[str, bytes] = {}
    count = 0
    while (header := read(BLOCK)).strip(b"\0"):
        count += 1
        if count > most:
            raise ArchiveRefused(f"more than {most} members")
        info = _parsed(header)
        if info.type in {b"x", b"g", b"L", b"K"}:
            _extend(more, info, _content(read, info))
            continue
        yield _member(info, more)
        more = {}
    if len(header) != BLOCK or more:
        raise ArchiveRefused("the archive ends in the middle")


def padding(size: int) -> int:
    return -size % BLOCK


def _parsed(header: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ArchiveRefused(f"not a tar archive, or damaged: {error}") from error
    if info.size < 0:
        raise ArchiveRefused("a member of negative size")
    return info


def _content(read: Read, info: tarfile.TarInfo) -> bytes:
    if info.size > LARGEST_HEADER:
        raise ArchiveRefused(f"a header of {info.size} bytes")
    content = read(info.size)
    if len(content) != info.size or len(read(padding(info.size))) != padding(info.size):
        raise ArchiveRefused("the archive ends in the middle")
    return content


def _extend(more: dict[str, bytes], info: tarfile.TarInfo, content: bytes) -> None:
    """A global header speaks of all that follows; nobody who writes checkpoints needs one, so it is passed over."""
    if info.type == b"L":
        more["path"] = content.rstrip(b"\0")
    elif info.type == b"K":
        more["linkpath"] = content.rstrip(b"\0")
    elif info.type == b"x":
        more.update(_records(content))


def _records(content: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(content):
        length, space, _ = content[at : at + 20].partition(b" ")
        end = at + int(length) if space and length.isdigit() else 0
        record = content[at + len(length) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end <= at or end > len(content) or not equals or not value.endswith(b"\n") or b"\0" in key:
            raise ArchiveRefused("a damaged pax header")
        yield key.decode("utf-8", "surrogateescape"), value[:-1]
        at = end


def _member(info: tarfile.TarInfo, more: Mapping[str, bytes]) -> Member:
    name = _decoded(more.get("path")) or info.name
    if any(key.startswith("GNU.sparse") for key in more) or info.type == b"S":
        raise ArchiveRefused(f"{quote(name)}: sparse files are not taken from archives")
    kind = KINDS.get(info.type)
    if kind is None:
        what = {b"3": "a character device", b"4": "a block device"}.get(info.type, f"of kind {info.type!r}")
        raise ArchiveRefused(f"{quote(name)}: is {what}: only files, directories and links are taken")
    size = _number(more, "size", info.size) if kind == "file" else 0
    if kind != "file" and info.size:
        raise ArchiveRefused(f"{quote(name)}: a {kind} with content")
    mtime = _number(more, "mtime", int(info.mtime))
    if not 0 <= mtime <= LATEST_S:
        raise ArchiveRefused(f"{quote(name)}: an impossible time")
    xattrs = {key.removeprefix(XATTR): value for key, value in more.items() if key.startswith(XATTR)}
    return Member(
        name, kind, size, info.mode & 0o7777, _number(more, "uid", info.uid), _number(more, "gid", info.gid),
        mtime * 10**9, _decoded(more.get("linkpath")) or info.linkname, xattrs,
    )  # fmt: skip


def _number(more: Mapping[str, bytes], key: str, otherwise: int) -> int:
    """Whole seconds are enough of a time."""
    text = more.get(key, b"").partition(b".")[0]
    if text and not (text.isdigit() and len(text) <= 18):
        raise ArchiveRefused(f"a pax header with {key}={text[:40]!r}")
    return int(text) if text else otherwise


def _decoded(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
