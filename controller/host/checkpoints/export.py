"""A checkpoint as one archive that podman, CRI-O and checkpointctl can read where features match."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final, Self

from controller.checkpoints import archive
from controller.checkpoints.manifest import Entry, Manifest, Piece
from controller.errors import ArchiveRefused, CheckpointDamaged, StepFailed
from controller.host.checkpoints.contents import Contents
from controller.host.syscalls import free_bytes
from controller.host.text import failed, sync_directory
from controller.model.checkpoint import SPEC, UPPER, Origin
from controller.model.dump import RUNTIME_FILE

HOLE: Final = bytes(1 << 20)
_ZSTD: Final = (".zst", ".zstd")
_GZIP: Final = (".gz", ".tgz")
_SHRUNK: Final = 8
"""To one part in so many memory is compressed at best, unless there is next to nothing in it."""
_TYPES: Final = {
    "file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE,
}  # fmt: skip


def export(
    found: Manifest, contents: Contents, path: str, scratch: str, digest: Callable[[], Any]
) -> tuple[str, ...]:
    """→ what could not go into an archive, by path: sockets, which CRIU makes anew, and devices.

    `path` ends in .tar, .tar.zst or .tar.gz and is replaced at once or not at all. Raises StepFailed.
    """
    temporary = f"{path}.tmp"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            with _compressed(path, file) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
                left = _Exporting(found, contents, tar, scratch, digest).write()
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise failed(error, "exporting to", path) from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    return left


def prove(path: str, need: int) -> None:
    """Whether such a file can be made there, with room for so many bytes of memory, roughly. Raises StepFailed."""
    least = need // _SHRUNK if path.endswith((*_ZSTD, *_GZIP)) else need
    temporary = f"{path}.tmp"
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(temporary)
        free = free_bytes(os.path.dirname(path))
    except OSError as error:
        raise failed(error, "exporting to", path) from error
    if least > free:
        raise StepFailed(
            f"exporting to {path}: {least} bytes are needed at least, and {free} are free",
            path=path,
            errno=errno.ENOSPC,
        )


def _compressed(path: str, file: IO[bytes]) -> Any:
    if path.endswith(_ZSTD):
        import zstandard  # noqa: PLC0415 - with the packages that only checkpoints need

        return zstandard.ZstdCompressor(level=3, threads=-1).stream_writer(file, closefd=False)
    if path.endswith(_GZIP):
        import gzip  # noqa: PLC0415

        return gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0)
    return _Plain(file)


class _Plain:
    """The file itself, which its owner closes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class _Exporting:
    def __init__(
        self,
        found: Manifest,
        contents: Contents,
        tar: tarfile.TarFile,
        scratch: str,
        digest: Callable[[], Any],
    ) -> None:
        if found.checkpoint.origin is None:
            raise CheckpointDamaged(f"{found.checkpoint.id}: nothing is known of where it came from")
        self._found, self._origin = found, found.checkpoint.origin
        self._contents, self._tar, self._scratch = contents, tar, scratch
        self._left: list[str] = []
        self._sums: dict[str, str] = {}
        self._digest = digest
        self._deleted: list[str] = []

    def write(self) -> tuple[str, ...]:
        """Small things first: whoever only wants to know what it is need not read the memory."""
        extras = {each.name: each for each in self._found.body.extras}
        kept = {name: self._contents.whole(each.pieces) for name, each in extras.items()}
        for each in self._found.body.images:
            if each.name == archive.STATISTICS and each.size <= archive.LARGEST_TEXT:
                kept[each.name] = self._contents.whole(each.pieces)
        for name, text in self._texts(self._origin, kept).items():
            self._add(self._info(name, tarfile.REGTYPE, len(text)), io.BytesIO(text))
        for name, entries in sorted(self._found.body.trees.items()):
            self._tree(name, entries)
        deleted = json.dumps(self._deleted).encode()
        if self._deleted:
            self._add(self._info(archive.DELETED, tarfile.REGTYPE, len(deleted)), io.BytesIO(deleted))
        self._add(self._info(archive.IMAGES, tarfile.DIRTYPE, 0), None)
        for each in self._found.body.images:
            if each.name.startswith(RUNTIME_FILE):
                continue
            info = self._info(f"{archive.IMAGES}/{each.name}", tarfile.REGTYPE, each.size)
            self._add(info, _Reader(self._contents, each.pieces))
        sums = json.dumps(self._sums, indent=1).encode()
        self._tar.addfile(self._info(archive.SUMS, tarfile.REGTYPE, len(sums)), io.BytesIO(sums))
        return tuple(self._left)

    def _texts(self, origin: Origin, kept: dict[str, bytes]) -> dict[str, bytes]:
        """Of another program's, what it wrote: to it masu's words would say less."""
        found = self._found.checkpoint
        ours = {
            archive.CONFIG: archive.config_dump(found, origin),
            SPEC: archive.spec_dump(origin, kept.get(SPEC)),
        }
        theirs = {name: text for name, text in kept.items() if name in archive.EXTRAS}
        texts = {**ours, **theirs} if origin.foreign else {**theirs, **ours}
        return {archive.OWN: archive.own(found, origin), **texts}

    def _tree(self, name: str, entries: Sequence[Entry]) -> None:
        """A tar of its own, whose size has to be known before it is written."""
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for entry in entries:
                    self._entry(tar, name, entry)
            size = file.tell()
            file.seek(0)
            self._add(self._info(archive.tree_member(name), tarfile.REGTYPE, size), file)

    def _entry(self, tar: tarfile.TarFile, tree: str, entry: Entry) -> None:
        base = os.path.basename(entry.path)
        if base.startswith(archive.WHITEOUT):
            raise ArchiveRefused(f"{entry.path}: its name would mean a deletion in an archive")
        if entry.kind == "device" and entry.device == ("c", 0, 0) and tree == UPPER:
            self._deleted.append("/" + entry.path)
        elif entry.kind not in _TYPES:
            self._left.append(f"{tree}/{entry.path}: {entry.kind}")
        else:
            info = _tree_info(entry)
            tar.addfile(info, _Reader(self._contents, entry.pieces) if entry.kind == "file" else None)  # type: ignore[arg-type]
            if archive.OPAQUE_XATTR in entry.xattrs:
                mark = "" if entry.path == "." else entry.path + "/"
                tar.addfile(tarfile.TarInfo(mark + archive.OPAQUE))

    def _add(self, info: tarfile.TarInfo, content: Any) -> None:
        summing = _Summing(content, self._digest())
        self._tar.addfile(info, summing if content is not None else None)  # type: ignore[arg-type]
        if content is not None:
            self._sums[info.name] = summing.digest.hexdigest()

    def _info(self, name: str, kind: bytes, size: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mode = kind, size, 0o700 if kind == tarfile.DIRTYPE else 0o600
        info.mtime = self._origin.created_ms // 1000
        return info


def _tree_info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.type, info.mode, info.uid, info.gid = _TYPES[entry.kind], entry.mode, entry.uid, entry.gid
    info.size = entry.size if entry.kind == "file" else 0
    info.mtime = entry.mtime_ns // 10**9
    info.linkname = entry.target
    kept = {key: value for key, value in entry.xattrs.items() if not key.startswith("trusted.")}
    info.pax_headers = {
        f"SCHILY.xattr.{key}": base64.b64decode(value).decode("utf-8", "surrogateescape")
        for key, value in kept.items()
    }
    return info


class _Summing:
    """What is read passes by a digest."""

    def __init__(self, content: Any, digest: Any) -> None:
        self._content, self.digest = content, digest

    def read(self, size: int) -> bytes:
        got: bytes = self._content.read(size)
        self.digest.update(got)
        return got


class _Reader:
    """A file's bytes, holes as zeros, in whatever amounts tarfile asks for."""

    def __init__(self, contents: Contents, pieces: Sequence[Piece]) -> None:
        self._parts = self._all(contents, pieces)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        got = []
        while size:
            if not self._rest:
                part = next(self._parts, None)
                if part is None:
                    break
                self._rest = memoryview(part)
            taken = self._rest[:size]
            self._rest = self._rest[len(taken) :]
            size -= len(taken)
            got.append(taken)
        return b"".join(got)

    @staticmethod
    def _all(contents: Contents, pieces: Sequence[Piece]) -> Iterator[bytes]:
        at = 0
        for offset, data in contents.stream(pieces):
            yield from _zeros(offset - at)
            yield data
            at = offset + len(data)
        yield from _zeros(sum(map(contents.size_of, pieces)) - at)


def _zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(HOLE)):
        yield HOLE[: min(len(HOLE), size - start)]
