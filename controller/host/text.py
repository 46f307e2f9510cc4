"""Small reads and atomic writes of text files, as every driver needs them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final

from controller.errors import NotPermitted, StepFailed
from controller.model.quantity import about_bytes, format_bytes

DELETED: Final = " (deleted)"
"""What the kernel writes behind the path of a file that has no name any more: d_path in fs/d_path.c."""

_PRIVATE: Final = 0o700
_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ESRCH,
        errno.ENODEV,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.ENXIO,
    }
)
"""A file of /proc or cgroupfs that is not there, or whose process, cgroup or controller is not."""


def read_text(path: str) -> str | None:
    """The file's text, or None when it, or what it describes, is not there (any more).

    Anything else says nothing about that, so it is an error: NotPermitted, or StepFailed (too many open files).
    """
    try:
        return _read(path)
    except PermissionError as error:
        raise NotPermitted(f"cannot read {path}: not permitted; masu must run as root") from error
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise failed(error, "reading", path) from error


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def failed(error: OSError, doing: str, path: str) -> StepFailed:
    """The one translation of an OSError: what was being done, where, and the errno's own words."""
    message = f"{doing} {path}: {os.strerror(error.errno or 0)} (errno {error.errno})"
    return StepFailed(message, path=path, errno=error.errno or 0)


def write_atomic(path: str, text: str, *, durable: bool, directory_mode: int = 0o700) -> None:
    """Replace a file so that readers see the old or the new text, never half; `durable` also syncs to disk.

    Directories that are missing are made.
    """
    temporary = f"{path}.{threading.get_native_id()}.tmp"  # each writer has its own
    try:
        descriptor = open_for_writing(temporary, os.O_TRUNC, directory_mode)
        try:
            write_all(descriptor, text.encode("utf-8", "surrogateescape"))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise failed(error, "writing", path) from error


def open_for_writing(path: str, flags: int, directory_mode: int = 0o700) -> int:
    """A descriptor; the file and the directories above are made if need be. Raises OSError, NotPermitted."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_directories(os.path.dirname(path), directory_mode)
        return os.open(path, flags, 0o600)


def write_all(descriptor: int, data: bytes) -> None:
    """However little the kernel takes at a time. Raises OSError."""
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """A descriptor of a directory, to ask something of it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(path: str) -> None:
    """What was renamed in it stays renamed. Raises OSError."""
    with opened_directory(path) as descriptor:
        os.fsync(descriptor)


def make_directories(path: str, mode: int = 0o711) -> None:
    """Like `mkdir -p`; raises NotPermitted on a read-only or forbidden place.

    0711: the root of a user namespace has to pass through to its bundle, but may list nothing.
    """
    if os.path.isdir(path):
        return
    try:
        _make_directory(path, mode)
    except PermissionError as error:
        raise NotPermitted(f"cannot create {path}: not permitted; masu must run as root") from error
    except OSError as error:
        raise NotPermitted(f"cannot create {path}: {os.strerror(error.errno or 0)}") from error


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileNotFoundError:
        make_directories(os.path.dirname(path))
        _make_directory(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_private(path: str) -> None:
    """A directory that only root may pass, also where it was made before with a wider mode. Raises NotPermitted.

    For files that belong to containers: a set-user-id program of theirs is nothing for users of the host.
    """
    make_directories(path, _PRIVATE)
    try:
        if stat.S_IMODE(os.stat(path).st_mode) != _PRIVATE:
            os.chmod(path, _PRIVATE)
    except OSError as error:
        raise NotPermitted(f"cannot make {path} private: {os.strerror(error.errno or 0)}") from error


def no_room(path: str, free: int, min_free: int) -> StepFailed:
    """For a checkpoint, or for what it is made of."""
    return StepFailed(
        f"no checkpoint: {path} has {about_bytes(free, up=False)} free, and {format_bytes(min_free)} shall"
        " stay free (checkpoint.minFree): make room there, or ask for less",
        path=path,
        errno=errno.ENOSPC,
    )


def existing_part(path: str) -> str:
    """The path, or the nearest directory above it that is there."""
    while path not in {"", "/"} and not os.path.isdir(path):
        path = os.path.dirname(path)
    return path or "/"


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(error, "removing", path) from error


def remove_tree(path: str) -> None:
    """Of masu's own making, where no container can write: names are trusted, and nothing is deep."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                (remove_tree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(error, "removing", path) from error
