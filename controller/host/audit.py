"""The Audit port: a file to which whole lines are appended, one write for each look, rotated by size.

What was written survives masu; a thread of its own takes care that it survives a power cut, too, a second later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection
from typing import Final

from controller.host.appended import AppendedFile
from controller.model.audit import Entry

MAX_BYTES: Final = 8 << 20
KEPT: Final = 4
"""Files that were put aside: .1 is the newest."""
SYNC_S: Final = 1.0


class AuditFile:
    """Thread-safe. Writing never raises: a full disk must not stop a repair. Lines that are lost are counted.

    The number of those stands in the next line that can be written. `told`: called when the first of them is lost.
    `lines`: how many there have been.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.told: Callable[[str], object] = _unheard
        self.lines, self.lost, self._untold = 0, 0, 0
        self._revision = ""
        self._lock = threading.Lock()
        self._file = AppendedFile(path, 0o755, secret=True)
        self._torn = False
        self._dirty = threading.Event()
        self._syncing: threading.Thread | None = None

    def revise(self, revision: str) -> None:
        """From now on this version of the desired set is in force."""
        self._revision = revision

    def append(self, entries: Collection[Entry]) -> None:
        lines = [each.to_line(self._revision) for each in entries]
        if not lines:
            return
        said = ""
        with self._lock:
            self.lines += len(lines)
            try:
                self._append("".join(lines).encode("utf-8", "surrogateescape"), entries)
            except Exception as error:  # noqa: BLE001
                said = "" if self._untold else f"{self.path} cannot be written: {error}"
                self.lost += len(lines)
                self._untold += len(lines)
        if said:
            self.told(said)

    def close(self) -> None:
        """What is written is on the disk when this returns."""
        with self._lock:
            self._sync()
            self._file.close()

    def _append(self, text: bytes, entries: Collection[Entry]) -> None:
        size = self._file.opened()
        if self._untold:
            at = next(iter(entries)).at
            text = f'{{"at": {at}, "lost": {self._untold}}}\n'.encode() + text
        if self._torn:
            text = b"\n" + text
        written = os.write(self._file.descriptor, text)
        self._torn = 0 < written < len(text)
        if written < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._untold = 0
        self._later()
        if size + written > MAX_BYTES:
            self._sync()
            self._file.put_aside(KEPT)

    def _later(self) -> None:
        """Whoever looks does not wait for the disk."""
        if self._syncing is None:
            self._syncing = threading.Thread(target=self._keep_synced, name="audit", daemon=True)
            self._syncing.start()
        self._dirty.set()

    def _keep_synced(self) -> None:
        pause = threading.Event()
        while True:
            self._dirty.wait()
            self._dirty.clear()
            with self._lock:
                copy = os.dup(self._file.descriptor) if self._file.descriptor >= 0 else -1
            if copy >= 0:
                with contextlib.suppress(OSError):
                    os.fdatasync(copy)
                os.close(copy)
            pause.wait(SYNC_S)

    def _sync(self) -> None:
        if self._file.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fdatasync(self._file.descriptor)


def _unheard(said: str) -> None:
    del said
