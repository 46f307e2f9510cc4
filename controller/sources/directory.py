"""A directory of spec files, or one file: what is in it now, and a nudge when that changes.

Never half a file: one that somebody has open for writing keeps its last text until it is closed. Never
outside: symlinks
are followed only to regular files below the source, as Kubernetes' `..data` swap needs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.errors import Problem, SourceUnreadable
from controller.sources.events import Watch

MAX_BYTES = 1024 * 1024
MAX_FILES = 10_000
SETTLED_NS = 20_000_000
"""A time stamp younger than this when read may hide a second write within the same tick of the clock."""
ATTEMPTS = 5

F_SETSIG = 10

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`path` as shown to people; `digest` of the text."""

    path: str
    text: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the source says at one moment; `unreadable` names what could not be read."""

    revision: str
    files: tuple[SourceFile, ...]
    unreadable: tuple[Problem, ...]


class DirectorySource:
    """Thread-safe. Remembers texts by inode and time stamps, so that an unchanged file is not read again."""

    def __init__(self, path: str) -> None:
        self._path = path.rstrip("/") or "/"
        self._known: dict[str, tuple[Identity, SourceFile]] = {}
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """Raises SourceUnreadable when the source as a whole is missing or cannot be listed."""
        with self._lock:
            files: list[SourceFile] = []
            problems: list[Problem] = []
            for path in self._spec_paths(problems):
                if len(files) >= MAX_FILES:
                    problems.append(
                        _problem(self._path, f"more than {MAX_FILES} spec files: the rest is not read")
                    )
                    break
                found = self._read(path, problems)
                if found:
                    files.append(found)
            kept = {file.path for file in files}
            self._known = {path: known for path, known in self._known.items() if path in kept}
            return Snapshot(_revision(files), tuple(files), tuple(problems))

    def watch(self, nudge: Callable[[], None]) -> Watch:
        """Call `nudge` whenever a spec file was closed after writing, moved, removed, or may have been."""
        return Watch(self._path, nudge)

    def _spec_paths(self, problems: list[Problem]) -> Iterator[str]:
        try:
            mode = os.stat(self._path).st_mode
            if stat.S_ISREG(mode):
                yield self._path
                return
            os.scandir(self._path).close()
        except OSError as error:
            raise SourceUnreadable(f"source {self._path}: {os.strerror(error.errno or 0)}") from error
        yield from sorted(_walk(self._path, problems))

    def _read(self, path: str, problems: list[Problem]) -> SourceFile | None:
        try:
            target = self._target(path)
            descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            problems.append(_problem(path, f"cannot be read: {os.strerror(error.errno or 0)}"))
            return None
        except ValueError as error:
            problems.append(_problem(path, str(error)))
            return None
        try:
            return self._read_open(path, descriptor, problems)
        finally:
            os.close(descriptor)

    def _target(self, path: str) -> str:
        """Where a symlink leads; raises ValueError when that is outside of the source."""
        if not os.path.islink(path) and path != self._path:
            return path
        target, root = os.path.realpath(path, strict=True), os.path.realpath(self._path)
        if path != self._path and not target.startswith(root.rstrip("/") + "/"):
            raise ValueError(f"is a symbolic link to {target}, outside of the source: not followed")
        return target

    def _read_open(self, path: str, descriptor: int, problems: list[Problem]) -> SourceFile | None:
        """Read until what was read is what is there: the file may change under the hand."""
        for _ in range(ATTEMPTS):
            before = os.fstat(descriptor)
            wrong = _unfit(before)
            if wrong:
                problems.append(_problem(path, wrong))
                return None
            known = self._known.get(path)
            if known and known[0] == _identity(before) and _is_settled(before):
                return known[1]
            if _is_being_written(descriptor):
                return known[1] if known else None
            text = os.pread(descriptor, MAX_BYTES + 1, 0)
            if _identity(os.fstat(descriptor)) == _identity(before) and len(text) == before.st_size:
                file = SourceFile(path, text, hashlib.sha256(text).hexdigest())
                self._known[path] = (_identity(before), file)
                return file
            time.sleep(0.001)
        problems.append(_problem(path, "keeps changing while it is read"))
        return None


def is_spec(name: str) -> bool:
    """Pure. `*.yaml` and `*.yml`, but nothing that an editor or a version control left: .x, x~, #x#, x.swp."""
    return name.endswith((".yaml", ".yml")) and not name.startswith((".", "#", "~"))


def _walk(directory: str, problems: list[Problem]) -> Iterator[str]:
    """Spec files below; hidden directories are not entered, so neither are Kubernetes' `..2026_…`."""
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except OSError as error:
        problems.append(_problem(directory, f"cannot be listed: {os.strerror(error.errno or 0)}"))
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        shown = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, problems)
        elif is_spec(entry.name):
            if shown != entry.name or not entry.name.isprintable():
                problems.append(_problem(f"{directory}/{shown!a}", "this file name is not printable text"))
            else:
                yield entry.path


def _unfit(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_size > MAX_BYTES:
        return f"is larger than {MAX_BYTES // 1024 // 1024} MiB"
    return ""


def _is_being_written(descriptor: int) -> bool:
    """fcntl(2), F_SETLEASE: no read lease is given while anybody has the file open for writing.

    Whoever opens it in the microseconds of the lease is held up for as long; its signal is one that is ignored.
    """
    try:
        fcntl.fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without leases
    return False


def _identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_settled(found: os.stat_result) -> bool:
    return time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_NS


def _revision(files: list[SourceFile]) -> str:
    text = "\n".join(f"{file.path} {file.digest}" for file in files)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _problem(path: str, message: str) -> Problem:
    return Problem(path, 0, 0, "", message)
