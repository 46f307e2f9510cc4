"""A directory of spec files, or one file: what is in it now, and a nudge when that changes.

Never half a file: one that somebody has open for writing keeps its last text until it is closed. Never outside:
symbolic links are followed only to what lies below the source, as Kubernetes' `..data` swap needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from controller.errors import Problem, SourceUnreadable
from controller.frozen import dataclass
from controller.host.trust import AS_GOOD_AS_ROOT, distrust, doubtful
from controller.model.snapshot import Snapshot, SourceFile
from controller.sources.walk import MAX_BYTES, MAX_FILES, TOO_LARGE, Listing, outside, walk
from controller.sources.watch import GONE_S, Watch

SETTLED_NS = 20_000_000
"""A file read this soon after its time stamp may have been written again within the same tick of the clock."""
GIVE_UP_S = 1.0
"""What is missing for this long is gone, however busy the directory it was in."""
ATTEMPTS = 5

F_SETSIG = 10

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A file as it was at `at_ns`."""

    identity: Identity
    at_ns: int
    file: SourceFile


class DirectorySource:
    """Thread-safe. Remembers texts by inode and time stamps, so that an unchanged file is not read again."""

    def __init__(self, path: str, *, root_only: bool = False) -> None:
        """`root_only`: nothing is taken that others than root may write."""
        self._path, self._root_only = path.rstrip("/") or "/", root_only
        self._known: dict[str, _Reading] = {}
        self._missed_at: dict[str, float] = {}
        self._told: frozenset[str] | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """Raises SourceUnreadable when the source as a whole is missing, cannot be listed, or may be anybody's.

        A file that went away less than GONE_S ago is still in it: a watch nudges again when that time is over.
        """
        with self._lock:
            return self._read_all(self._list())

    def watch(self, nudge: Callable[[], None]) -> Watch:
        """Call `nudge` whenever a spec file was closed after writing, moved, removed, or may have been."""
        return Watch(self._path, nudge)

    def _list(self) -> Listing:
        try:
            why = distrust(self._path) if self._root_only else ""
            if why:
                raise SourceUnreadable(f"source {self._path} is not root's alone: {why}; {AS_GOOD_AS_ROOT}")
            if stat.S_ISREG(os.stat(self._path).st_mode):
                return Listing((self._path,))
            os.scandir(self._path).close()
        except OSError as error:
            raise SourceUnreadable(f"source {self._path}: {os.strerror(error.errno or 0)}") from error
        return walk(self._path, root_only=self._root_only)

    def _leaving(self, listing: Listing) -> frozenset[str]:
        """What is not there, but may be about to come back; what is removed is a container that ends.

        Editors and git move or remove a file before they write the new one, and change its directory with that.
        """
        now = time.monotonic()
        missing = (path for path in set(self._known) - set(listing.paths) if not listing.covers(path))
        missed_at = {path: self._missed_at.get(path, now) for path in missing}
        ages = {parent: _age_s(parent) for parent in map(os.path.dirname, missed_at)}
        self._missed_at = {
            path: at
            for path, at in missed_at.items()
            if now - at < GIVE_UP_S and ages[os.path.dirname(path)] < GONE_S
        }
        return frozenset(self._missed_at)

    def _read_all(self, listing: Listing) -> Snapshot:
        """What is below a directory that cannot be listed stays as it was."""
        problems = list(listing.problems)
        if len(listing.paths) > MAX_FILES:
            message = f"more than {MAX_FILES} spec files: the rest is not read"
            problems.append(Problem(self._path, 0, 0, "", message))
        root = os.path.realpath(self._path)
        leaving = self._leaving(listing)
        known = {path: each for path, each in self._known.items() if path in leaving or listing.covers(path)}
        files = {path: replace(each.file, is_leaving=path in leaving) for path, each in known.items()}
        for path in listing.paths[:MAX_FILES]:
            reading = self._reading_or(problems, path, root)
            if reading:
                files[path] = reading.file
            last = reading or self._known.get(path)
            if last:
                known[path] = last
        self._known, self._told = known, frozenset(problem.file for problem in problems)
        ordered = tuple(files[path] for path in sorted(files))
        if not ordered and not problems and _is_repository(self._path):
            raise SourceUnreadable(
                f"source {self._path} holds no spec file; this is a git repository: write git+file://{root}"
            )
        source = os.path.abspath(self._path)
        return Snapshot(revision_of(ordered), ordered, tuple(problems), source=source)

    def _reading_or(self, problems: list[Problem], path: str, root: str) -> _Reading | None:
        """None: it is not there, or `problems` says why not."""
        try:
            return self._reading(path, root)
        except _Unfinished as unfinished:
            if not self._is_new(path):
                problems.append(Problem(path, 0, 0, "", str(unfinished)))
        except _Unfit as unfit:
            problems.append(Problem(path, 0, 0, "", str(unfit)))
        return None

    def _is_new(self, path: str) -> bool:
        """Whether nobody can know an earlier version: of what was there before the first look, somebody may.

        That one must not be left out silently while it is being written: it would look as if it had been removed.
        """
        if self._told is None:
            return False
        return not any(path == each or path.startswith(f"{each}/") for each in self._told)

    def _reading(self, path: str, root: str) -> _Reading | None:
        """None: it went away, and was never read. Raises _Unfit."""
        for attempt in range(ATTEMPTS):
            try:
                return self._read(path, root)
            except OSError as error:
                if not os.path.lexists(path):
                    break
                if not isinstance(error, FileNotFoundError) or attempt == ATTEMPTS - 1:
                    raise _Unfit(f"cannot be read: {os.strerror(error.errno or 0)}") from error
                time.sleep(0.001)  # it is being replaced, or is a link to nothing
        return self._known.get(path)  # a nudge that it is gone will follow

    def _read(self, path: str, root: str) -> _Reading:
        """Nothing but a regular file is opened: opening a device is an act. Raises OSError and _Unfit."""
        known = self._known.get(path)
        with _opened(path, os.O_PATH) as place:
            found = os.fstat(place)
            _check(found, os.readlink(f"/proc/self/fd/{place}"), "" if path == self._path else root)
            if self._root_only and (why := doubtful(found)):
                raise _Unfit(f"{why}: not followed")
            if known and is_unchanged(known.identity, known.at_ns, _identity(found)):
                return known
            with _opened(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                return _read(path, descriptor, known)


class _Unfit(Exception):
    """Why one file is left out."""


class _Unfinished(_Unfit):
    """It is being written, and there is no last text of it."""


def _is_repository(path: str) -> bool:
    """Read-only. gitrepository-layout(5), bare or with its work tree around it."""
    return any(
        all(os.path.exists(f"{path}{below}/{name}") for name in ("HEAD", "objects", "refs"))
        for below in ("", "/.git")
    )


def is_unchanged(known: Identity, read_at_ns: int, now: Identity) -> bool:
    """Pure. Whether a text read at `read_at_ns` is what is there now, going by inode, size and time stamps."""
    return known == now and read_at_ns - max(now[3:]) > SETTLED_NS


def _check(found: os.stat_result, target: str, root: str) -> None:
    """Raises _Unfit. `root` is empty where the file itself is the source, wherever it may lie."""
    if root and not target.startswith(f"{root.rstrip('/')}/"):
        raise _Unfit(outside(target))
    if not stat.S_ISREG(found.st_mode):
        raise _Unfit("is not a regular file")
    if found.st_size > MAX_BYTES:
        raise _Unfit(TOO_LARGE)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(path: str, descriptor: int, known: _Reading | None) -> _Reading:
    """The text, or the last one while somebody writes; raises _Unfinished where there is no last one."""
    found = os.fstat(descriptor)
    if found.st_size == 0 and time.time_ns() - found.st_mtime_ns < SETTLED_NS:
        time.sleep(SETTLED_NS / 1e9)  # open(2) makes a file a moment before it holds it open
    with _held(descriptor) as is_held:
        if is_held:
            return _read_held(path, descriptor)
    if known:
        return replace(known, at_ns=0)
    raise _Unfinished("is open for writing: it is read when it is closed")


def _read_held(path: str, descriptor: int) -> _Reading:
    """Read until what was read is what is there: on a file system without leases it may change meanwhile."""
    for _ in range(ATTEMPTS):
        at_ns, before = time.time_ns(), os.fstat(descriptor)
        text = os.pread(descriptor, MAX_BYTES + 1, 0)
        if _identity(os.fstat(descriptor)) == _identity(before) and len(text) == before.st_size:
            return _Reading(
                _identity(before), at_ns, SourceFile(path, text, hashlib.sha256(text).hexdigest())
            )
        time.sleep(0.001)
    raise _Unfit("keeps changing while it is read, or is too large")


@contextlib.contextmanager
def _held(descriptor: int) -> Iterator[bool]:
    """False while anybody has the file open for writing; else nobody can until the block is left.

    fcntl(2), F_SETLEASE: who opens it for writing waits for as long as the reading takes; the signal that tells
    the holder of that is chosen to be one that is ignored.
    """
    try:
        fcntl.fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        yield False
        return
    except OSError:
        yield True  # a file system without leases, or somebody else's file
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _age_s(directory: str) -> float:
    """Seconds since an entry came or went; of the nearest directory above, where it is gone itself."""
    while True:
        try:
            return time.time() - os.stat(directory).st_mtime
        except OSError:
            above = os.path.dirname(directory) or "."
            if above == directory:
                return GONE_S
            directory = above


def _identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def revision_of(files: tuple[SourceFile, ...]) -> str:
    """Pure. Changes when and only when a file or its text does."""
    text = "\n".join(f"{file.path} {file.digest}" for file in files)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
