"""Nudges from inotify, through watchdog: something may have changed. Never more than a reason to look.

Taken from watchdog's `InotifyFD`, not from its observers: those hold a file that moves away back for half a
second, and every event behind it, and do not tell when the kernel's queue has overflowed.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from controller.sources.walk import is_spec

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import CallbackId, InotifyEvent, Mask, WatchDescriptor

POLL_S = 0.5
"""How often the root is looked for, in case it was replaced without an event, as a symbolic link can be."""
MISSING_S = 0.05
GONE_S = 0.1
"""Editors and git move or remove a file before they write the new one, for up to 12 ms on a busy machine."""
AGAIN_S = (GONE_S + 0.02, 1.3)
"""After a removal another look is due: when it counts, and when it counts in a directory that never rests."""
DEGRADED_S = 1.0

IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x004, 0x008, 0x040, 0x080
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_ONLYDIR, IN_ISDIR = 0x01000000, 0x40000000
OF_ENTRIES = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
"""Not IN_MODIFY: a file that is still being written is no reason to look. inotify(7)."""
MASK = OF_ENTRIES | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
EXHAUSTED = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

Identity = tuple[int, ...]
Signal = Callable[[], None]


class Watch:
    """Watches from construction until `close`. `nudge` is called from threads of the watch and must be quick.

    A root that is missing, comes back or is replaced is followed. `degraded` says why only polling is left, once
    a second, and is empty otherwise.
    """

    def __init__(self, root: str, nudge: Callable[[], None]) -> None:
        self._root, self._nudge = root, nudge
        self.degraded = ""
        self._tree: _Tree | None = None
        self._watched: Identity = ()
        self._due: tuple[float, ...] = ()
        self._woken, self._closed = threading.Event(), threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._follow, name="source", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Somebody wants it looked at now."""
        self._nudge()

    def close(self) -> None:
        """No nudge comes after this, and no descriptor stays open."""
        self._closed.set()
        self._woken.set()
        if self._thread is not threading.current_thread():
            self._thread.join(5)
        self._drop()

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._woken.wait(self._pause_s())
            self._woken.clear()
            if self._closed.is_set():
                return
            if self._is_stale():
                self._renew()
                self._due = () if self.degraded else _later()
                self._tell()
            elif self._is_due():
                self._tell()

    def _tell(self) -> None:
        """An error of who is told is theirs, and reported; it must not end the watch."""
        try:
            self._nudge()
        except Exception:  # noqa: BLE001
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _removed(self) -> None:
        """Something may have gone: see whether it has, later."""
        self._due = _later()
        self._woken.set()

    def _is_due(self) -> bool:
        now, due = time.monotonic(), self._due
        if not due or due[0] > now:
            return False
        self._due = due[1:]
        return True

    def _pause_s(self) -> float:
        if self.degraded:
            return DEGRADED_S
        pause, due = POLL_S if self._watched else MISSING_S, self._due
        return min(pause, max(0.0, due[0] - time.monotonic())) if due else pause

    def _is_stale(self) -> bool:
        lost = self._tree is not None and self._tree.is_lost()
        return bool(self.degraded) or lost or _identity(self._root) != self._watched

    def _renew(self) -> None:
        """What is there is remembered before it is watched, so that a replacement in between is noticed."""
        self._drop()
        self._watched = _identity(self._root)
        try:
            self._tree = (
                _Tree(self._root, self._tell, self._woken.set, self._removed) if self._watched else None
            )
            self.degraded = ""
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if error.errno not in EXHAUSTED and not _identity(self._root):
            self._watched = ()  # it has gone again
            self.degraded = ""
        else:
            why = os.strerror(error.errno or 0)
            self.degraded = f"inotify: {why}; looking every {DEGRADED_S:g} s instead"

    def _drop(self) -> None:
        tree, self._tree = self._tree, None
        if tree:
            tree.close()


class _Tree:
    """inotify on one directory and all below it, hidden ones excepted; for a file, on the directory it is in.

    Raises OSError when the root cannot be watched, or the kernel allows no more watches.
    """

    def __init__(self, root: str, nudge: Signal, wake: Signal, removed: Signal) -> None:
        from watchdog.observers.inotify_c import InotifyFD  # noqa: PLC0415  # one-shot commands do not watch

        self._nudge, self._wake, self._removed = nudge, wake, removed
        self._only = "" if os.path.isdir(root) else os.path.basename(root)
        self._top = (os.path.dirname(root) or ".") if self._only else root
        self._paths: dict[WatchDescriptor, tuple[str, CallbackId]] = {}
        self._serial = itertools.count(1)
        self._lost = False
        self._inotify = InotifyFD()
        self._inotify.start()
        try:
            self._add(self._top)
            self._add_below(self._top)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._inotify.stop()
        if self._inotify is not threading.current_thread():
            self._inotify.join(5)

    def is_lost(self) -> bool:
        return self._lost or not self._inotify.is_alive()

    def on_event(self, event: InotifyEvent) -> None:
        path, _ = self._paths.get(event.wd, ("", 0))
        name = os.fsdecode(event.name)
        if event.mask & (IN_DELETE_SELF | IN_MOVE_SELF):
            self._left(path)
        elif path and self._matters(name):
            if event.mask & IN_ISDIR and event.mask & (IN_CREATE | IN_MOVED_TO):
                self._arrived(f"{path}/{name}")
            if event.mask & (IN_DELETE | IN_MOVED_FROM | IN_ISDIR) or not is_spec(name):
                self._removed()  # a swapped link or directory may leave out what the last one had
            self._nudge()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self._paths.pop(wd, None)

    def on_queue_overflow(self) -> None:
        """Whatever was lost may have been a new directory."""
        self._arrived(self._top)
        self._removed()
        self._nudge()

    def _matters(self, name: str) -> bool:
        """Kubernetes' `..data` does; `.git`, `.web.yaml.swp` and, beside a single file, its neighbours do not."""
        if self._only:
            return name == self._only
        return not name.startswith(".") or name.startswith("..")

    def _left(self, path: str) -> None:
        if path == self._top:
            self._lost = True
            self._wake()

    def _arrived(self, path: str) -> None:
        """Watched before its files are looked for: none can come in between unseen."""
        try:
            self._add(path)
            self._add_below(path)
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._lost = True
                self._wake()

    def _add_below(self, path: str) -> None:
        if self._only:
            return
        for directory in _directories(path):
            try:
                self._add(directory)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise  # anything else: it has gone again

    def _add(self, path: str) -> None:
        """A directory that was moved has the same watch under another name: the old callback goes."""
        serial: CallbackId = next(self._serial)  # type: ignore[assignment]
        mask: Mask = MASK  # type: ignore[assignment]
        wd = self._inotify.add_callback(os.fsencode(path), mask, self, serial)
        before, self._paths[wd] = self._paths.get(wd), (path, serial)
        if before:
            self._inotify.remove_callbacks([(wd, before[1])])


def _later() -> tuple[float, ...]:
    now = time.monotonic()
    return tuple(now + after for after in AGAIN_S)


def _directories(path: str) -> Iterator[str]:
    """All directories below that are not hidden; links are not followed."""
    for parent, names, _ in os.walk(path):
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (f"{parent}/{name}" for name in names if not os.path.islink(f"{parent}/{name}"))


def _identity(path: str) -> Identity:
    """() when nothing is there. A single file may be edited where a link leads to, out of inotify's sight."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    if os.path.isdir(path):
        return found.st_dev, found.st_ino
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
