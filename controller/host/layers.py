"""The Layers port: writable overlay layers and leased id ranges, in /var/lib."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from controller.errors import StepFailed
from controller.host import command
from controller.host.places import Places
from controller.host.text import failed, make_directories, open_for_writing, read_text, write_atomic
from controller.model.process import IdRange

RANGE_SIZE = 65_536
REMOVED = ".removed"
FIRST_RANGE = 0x7000_0000
LAST_RANGE = 0x7FFE_0000
"""Above what systemd-nspawn picks from (0x0008_0000 on), below what systemd keeps for foreign images
(systemd.io/UIDS-GIDS); what /etc/subuid and /etc/subgid give to others is passed over."""
SUBORDINATE = ("/etc/subuid", "/etc/subgid")
REMOVAL_S = 600.0


class LayerDirectories:
    """`<state>/layers/<name>/{upper,work,frame}`; ranges of all instances in one locked file."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def names(self) -> frozenset[str]:
        try:
            return frozenset(_owner(entry) for entry in os.listdir(self._places.layers))
        except FileNotFoundError:
            return frozenset()

    def state(self, name: str) -> str | None:
        """The frame that the layer was made for; empty where it is half made or half removed, None without one."""
        base = f"{self._places.layers}/{name}"
        try:
            return os.readlink(f"{base}/frame")
        except OSError:
            return "" if os.path.lexists(base) or os.path.lexists(self._doomed(name)) else None

    def prepare(self, name: str, frame: str, owner: int) -> None:
        """Make an empty layer; `frame` is made last, so a layer without it is half made.

        It is a symbolic link that points nowhere: the journal keeps its text with its name, without a sync.
        """
        base = f"{self._places.layers}/{name}"
        make_directories(base, 0o711)
        try:
            for part, mode in (("upper", 0o755), ("work", 0o700)):
                os.makedirs(f"{base}/{part}", exist_ok=True)
                os.chmod(f"{base}/{part}", mode)
                os.chown(f"{base}/{part}", owner, owner)
            os.symlink(frame, f"{base}/frame")
        except FileExistsError:
            return
        except OSError as error:
            raise failed(error, "preparing layer", base) from error

    def remove(self, name: str) -> None:
        """Renamed first, so that an interrupted removal never looks like a layer; the next one ends it."""
        base, doomed = f"{self._places.layers}/{name}", self._doomed(name)
        try:
            if os.path.lexists(doomed):
                _remove(doomed)
            if os.path.lexists(base):
                os.rename(base, doomed)
                _remove(doomed)
        except OSError as error:
            raise failed(error, "removing layer", base) from error

    def range_of(self, name: str) -> IdRange | None:
        leases = _read_leases(self._places.ranges)
        first = leases.get(self._key(name))
        return IdRange(first, RANGE_SIZE) if isinstance(first, int) else None

    def lease_range(self, name: str) -> IdRange:
        """The container's own range, for ever the same until it is released."""

        def lease(leases: dict[str, Any]) -> None:
            if self._key(name) in leases:
                return
            taken = [(first, RANGE_SIZE) for first in leases.values()] + _subordinate()
            firsts = range(FIRST_RANGE, LAST_RANGE, RANGE_SIZE)
            chosen = next((first for first in firsts if not _overlaps(first, taken)), None)
            if chosen is None:
                raise StepFailed(
                    f"no free id range left, see {self._places.ranges}", path=self._places.ranges
                )
            leases[self._key(name)] = chosen

        leases = self._change_leases(lease)
        return IdRange(leases[self._key(name)], RANGE_SIZE)

    def release_range(self, name: str) -> None:
        if self.range_of(name) is not None:
            self._change_leases(lambda leases: leases.pop(self._key(name), None))

    def _doomed(self, name: str) -> str:
        return f"{self._places.layers}/.{name}{REMOVED}"

    def _key(self, name: str) -> str:
        return f"{self._places.instance}/{name}"

    def _change_leases(self, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Several instances share the host's ids, so the file is locked while it changes."""
        lock = open_for_writing(self._places.ranges + ".lock", 0, 0o711)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            leases = _read_leases(self._places.ranges)
            before = dict(leases)
            change(leases)
            if leases != before:
                write_atomic(self._places.ranges, json.dumps(leases, indent=1), durable=True)
            return leases
        finally:
            os.close(lock)


def _remove(path: str) -> None:
    """A container may have made directories deeper than Python can follow; rm(1) follows them all."""
    try:
        shutil.rmtree(path)
    except RecursionError:
        status, said = command.output(["rm", "-rf", "--one-file-system", "--", path], REMOVAL_S)
        if status:
            raise StepFailed(f"removing layer {path}: {said.strip()}", path=path) from None


def _owner(entry: str) -> str:
    """Of a layer, and of one whose removal was interrupted."""
    return entry.removeprefix(".").removesuffix(REMOVED)


def _subordinate() -> list[tuple[int, int]]:
    """(first, how many) of the ids that users may map, subuid(5)."""
    found = []
    for path in SUBORDINATE:
        for line in (read_text(path) or "").splitlines():
            _, _, rest = line.partition(":")
            first, _, size = rest.partition(":")
            if first.isdigit() and size.strip().isdigit():
                found.append((int(first), int(size)))
    return found


def _overlaps(first: int, taken: Iterable[tuple[int, int]]) -> bool:
    return any(first < start + size and start < first + RANGE_SIZE for start, size in taken)


def _read_leases(path: str) -> dict[str, Any]:
    """A damaged file is never taken for an empty one: two containers would then share one range."""
    try:
        value = json.loads(read_text(path) or "{}")
    except ValueError as error:
        raise StepFailed(f"{path} is damaged ({error}): restore or remove it", path=path) from error
    return value if isinstance(value, dict) else {}
