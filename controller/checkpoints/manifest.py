"""A manifest: what a checkpoint consists of. Three lines of canonical JSON; values here, bytes at the edge. Pure.

1. the head: id, origin, sizes, digests of the other two lines, and a checksum over itself: enough for a listing;
2. the names of all chunks, sorted: enough to know what must be kept, also without the key;
3. the body: files with their pieces, and file-system trees; sealed where there is a key.

A piece of a file is, in the order of the file: n ≥ 0, all of chunk n (of line 2); n < 0, a hole of -n bytes; or
[name, chunk, offset, size, …]: parts of chunks that together have the digest `name`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import chain
from typing import Any, cast

from controller.errors import NOT_UNDERSTOOD, CheckpointDamaged
from controller.frozen import dataclass
from controller.model.checkpoint import Checkpoint, Origin
from controller.model.names import quote

VERSION = 1
NAME_DIGITS = 64

Piece = int | list[Any]
Digest = Callable[[bytes], bytes]


def parts_of(piece: Sequence[Any]) -> Iterator[tuple[int, int, int]]:
    """(chunk, offset, size) of a piece that is made of parts of chunks."""
    return zip(piece[1::3], piece[2::3], piece[3::3], strict=True)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`name` is a plain file name in the image directory, or a path in a tree."""

    name: str
    size: int
    pieces: tuple[Piece, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "pieces": list(self.pieces)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoredFile:
        """Raises KeyError or TypeError for what is no such value, as the others here do."""
        return cls(_of(value["name"], str), _of(value["size"], int), tuple(_of(value["pieces"], list)))


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree. `kind`: file, directory, symlink, device, fifo, socket, or link (a further hard link).

    `mode`: permission bits. `target`: of a symlink, or the path a hard link shares. `device`: (type, major, minor).
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    device: tuple[str, int, int] | None = None
    size: int = 0
    pieces: tuple[Piece, ...] = ()

    def to_json(self) -> dict[str, Any]:
        whole = {name: getattr(self, name) for name in _ENTRY_KEYS}
        small = {name: value for name, value in whole.items() if value not in _EMPTY}
        if self.xattrs:
            small["xattrs"] = dict(self.xattrs)
        return small

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Entry:
        known = {name: _of(each, _ENTRY_KINDS[name]) for name, each in value.items() if name in _ENTRY_KINDS}
        for each in known.get("xattrs", {}).values():
            _of(each, str)
        device = _of_device(known["device"]) if "device" in known else None
        return cls(**{**known, "pieces": tuple(known.get("pieces", ())), "device": device})


_ENTRY_KEYS = ("path", "kind", "mode", "uid", "gid", "mtime_ns", "target", "device", "size", "pieces")
_EMPTY = (0, "", None, ())
_ENTRY_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("path", "kind", "target"), str),
    **dict.fromkeys(("mode", "uid", "gid", "mtime_ns", "size"), int),
    **dict.fromkeys(("device", "pieces"), list),
    "xattrs": dict,
}


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} is expected")
    return value


def _of_device(value: list[Any]) -> tuple[str, int, int]:
    letter, major, minor = value
    return _of(letter, str), _of(major, int), _of(minor, int)


def _check_pieces(pieces: Iterable[Piece], chunks: int) -> None:
    """`chunks`: so many there are. Raises ValueError or TypeError."""
    for piece in pieces:
        if isinstance(piece, list):
            _of(piece[0], str)
            parts = [_of(each, int) for number in parts_of(piece) for each in number]
            if min(parts, default=0) < 0 or max(parts[::3], default=-1) >= chunks:
                raise ValueError("a part of no chunk")
        elif _of(piece, int) >= chunks:
            raise ValueError("a piece of no chunk")


@dataclass(frozen=True, slots=True)
class Body:
    """`sizes`: bytes of each chunk of the manifest's list."""

    images: tuple[StoredFile, ...] = ()
    extras: tuple[StoredFile, ...] = ()
    trees: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "images": [each.to_json() for each in self.images],
            "extras": [each.to_json() for each in self.extras],
            "trees": {name: [each.to_json() for each in entries] for name, entries in self.trees.items()},
            "sizes": list(self.sizes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Body:
        """Raises KeyError, TypeError, ValueError and the like for anything `to_json` did not write."""
        found = cls(
            tuple(StoredFile.from_json(each) for each in value["images"]),
            tuple(StoredFile.from_json(each) for each in value["extras"]),
            {
                name: tuple(Entry.from_json(each) for each in entries)
                for name, entries in value["trees"].items()
            },
            tuple(_of(each, int) for each in value["sizes"]),
        )
        for file in (*found.images, *found.extras):
            _check_pieces(file.pieces, len(found.sizes))
        for entry in chain.from_iterable(found.trees.values()):
            _check_pieces(entry.pieces, len(found.sizes))
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    checkpoint: Checkpoint
    chunks: tuple[bytes, ...]
    body: Body


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def bound_to(checkpoint: Checkpoint) -> bytes:
    """What a sealed body is bound to: nobody can put it under another head unseen."""
    return canonical(_about(checkpoint))


def encode(checkpoint: Checkpoint, chunks: Sequence[bytes], body: bytes, digest: Digest) -> bytes:
    """The file. `body`: the third line, sealed or not."""
    table = canonical(b"".join(chunks).hex())
    amounts = {"stored": checkpoint.stored, "alone": checkpoint.alone, "images": checkpoint.images}
    head = {**_about(checkpoint), **amounts, "version": VERSION}
    for name, line in (("table", table), ("body", body)):
        head[name] = {"bytes": len(line), "blake3": digest(line).hex()}
    head["checksum"] = digest(canonical(head)).hex()
    return b"\n".join((canonical(head), table, body, b""))


def decode_head(line: bytes, file_size: int, digest: Digest) -> tuple[Checkpoint, dict[str, Any]]:
    """Raises CheckpointDamaged when the head, or the size of the whole file, is not as written."""
    try:
        head = json.loads(line)
        checksum = head.pop("checksum")
        if digest(canonical(head)).hex() != checksum:
            raise CheckpointDamaged("the manifest's head is damaged")
        if head["version"] != VERSION:
            raise CheckpointDamaged(
                f"a manifest of version {quote(str(head['version']))}: this masu reads {VERSION}"
            )
        checkpoint = Checkpoint(
            head["id"], Origin.from_json(head["origin"]), head["size"], head["stored"], head["alone"],
            tuple(head["trees"]), head["key"], images=int(head.get("images", 0)),
        )  # fmt: skip
        if len(line) + head["table"]["bytes"] + head["body"]["bytes"] + 3 != file_size:
            raise CheckpointDamaged("the manifest is torn")
    except NOT_UNDERSTOOD as error:
        raise CheckpointDamaged("the manifest's head is damaged") from error
    return checkpoint, head


def split(text: bytes, digest: Digest) -> tuple[Checkpoint, tuple[bytes, ...], bytes]:
    """→ (checkpoint, names of chunks, third line) of a whole file, all digests checked."""
    line, _, rest = text.partition(b"\n")
    checkpoint, head = decode_head(line, len(text), digest)
    table, _, rest = rest.partition(b"\n")
    body = rest.removesuffix(b"\n")
    for name, part in (("table", table), ("body", body)):
        if digest(part).hex() != head[name]["blake3"]:
            raise CheckpointDamaged(f"the manifest's {name} is damaged")
    names = bytes.fromhex(cast("str", json.loads(table)))
    size = NAME_DIGITS // 2
    return checkpoint, tuple(names[at : at + size] for at in range(0, len(names), size)), body


def decode_body(text: bytes) -> Body:
    try:
        return Body.from_json(json.loads(text))
    except NOT_UNDERSTOOD as error:
        raise CheckpointDamaged("the manifest's body is not understood") from error


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    origin = checkpoint.origin.to_json() if checkpoint.origin else {}
    return {
        "id": checkpoint.id, "origin": origin, "size": checkpoint.size,
        "trees": sorted(checkpoint.trees), "key": checkpoint.key,
    }  # fmt: skip
