"""The Layers port: writable overlay layers and leased id ranges, in /var/lib."""

from __future__ import annotations

import os
from collections.abc import Iterable

from controller.errors import StepFailed
from controller.host.number_file import NumberFile
from controller.host.places import Places
from controller.host.removal import remove_deep
from controller.host.text import failed, make_directories, make_private, read_text
from controller.model.process import IdRange
from controller.model.space import CONTENT, ROOTFS, Space

RANGE_SIZE = 65_536
REMOVED = ".removed"
FIRST_RANGE = 0x7000_0000
LAST_RANGE = 0x7FFE_0000
"""Above what systemd-nspawn picks from (0x0008_0000 on), below what systemd keeps for foreign images
(systemd.io/UIDS-GIDS); what /etc/subuid and /etc/subgid give to others is passed over."""
SUBORDINATE = ("/etc/subuid", "/etc/subgid")
PARTS = (("upper", 0o755), ("work", 0o700))


class LayerDirectories:
    """`<state>/layers/<name>/{upper,work,frame}`; ranges of all instances in one locked file.

    A layer with a size is in a space: its `upper` and `work` are in the space's content, its `frame` is beside the
    space's file system, where it is seen also while that is not mounted.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._ranges = NumberFile(places.ranges)

    def names(self) -> frozenset[str]:
        try:
            return frozenset(_owner(entry) for entry in os.listdir(self._places.layers))
        except FileNotFoundError:
            return frozenset()

    def state(self, name: str) -> str | None:
        """The frame that the layer was made for; empty where it is half made or half removed, None without one."""
        base = f"{self._places.layers}/{name}"
        for each in (base, self._space(name)):
            try:
                return os.readlink(f"{each}/frame")
            except OSError:
                continue
        return "" if os.path.lexists(base) or os.path.lexists(self._doomed(name)) else None

    def prepare(self, name: str, frame: str, owner: int, *, sized: bool) -> None:
        """Make an empty layer; `frame` is made last, so a layer without it is half made.

        It is a symbolic link that points nowhere: the journal keeps its text with its name, without a sync.
        """
        base = self._space(name) if sized else f"{self._places.layers}/{name}"
        if sized and not os.path.isdir(f"{base}/{CONTENT}"):
            raise StepFailed(f"{base}: the space of the layer is not mounted", path=base)
        if not sized:
            make_private(self._places.layers)
        make_directories(base, 0o711)
        try:
            if os.path.lexists(f"{base}/frame"):
                return
            if sized:
                _empty(f"{base}/{CONTENT}")  # of what an interrupted removal has left
            _make_parts(f"{base}/{CONTENT}" if sized else base, owner)
            os.symlink(frame, f"{base}/frame")
        except FileExistsError:
            return
        except OSError as error:
            raise failed(error, "preparing layer", base) from error

    def remove(self, name: str) -> None:
        """Renamed first, so that an interrupted removal never looks like a layer; the next one ends it.

        Of one in a space the content goes; the space itself is not the layer's.
        """
        base, doomed, space = f"{self._places.layers}/{name}", self._doomed(name), self._space(name)
        try:
            if os.path.lexists(doomed):
                remove_deep(doomed)
            if os.path.lexists(base):
                os.rename(base, doomed)
                remove_deep(doomed)
            if os.path.lexists(f"{space}/frame"):
                os.unlink(f"{space}/frame")
                _empty(f"{space}/{CONTENT}")
        except OSError as error:
            raise failed(error, "removing layer", base) from error

    def range_of(self, name: str) -> IdRange | None:
        first = self._ranges.of(self._key(name))
        return None if first is None else IdRange(first, RANGE_SIZE)

    def lease_range(self, name: str) -> IdRange:
        """The container's own range, for ever the same until it is released."""
        return IdRange(self._ranges.lease(self._key(name), _free_range), RANGE_SIZE)

    def release_range(self, name: str) -> None:
        self._ranges.release(self._key(name))

    def _doomed(self, name: str) -> str:
        return f"{self._places.layers}/.{name}{REMOVED}"

    def _key(self, name: str) -> str:
        return f"{self._places.instance}/{name}"

    def _space(self, name: str) -> str:
        return f"{self._places.spaces}/{Space(ROOTFS, name).text}"


def _make_parts(base: str, owner: int) -> None:
    for part, mode in PARTS:
        os.makedirs(f"{base}/{part}", exist_ok=True)
        os.chmod(f"{base}/{part}", mode)
        os.chown(f"{base}/{part}", owner, owner)


def _empty(content: str) -> None:
    for part, _ in PARTS:
        if os.path.lexists(f"{content}/{part}"):
            remove_deep(f"{content}/{part}")


def _free_range(taken: list[int]) -> int | None:
    held = [(first, RANGE_SIZE) for first in taken] + _subordinate()
    firsts = range(FIRST_RANGE, LAST_RANGE, RANGE_SIZE)
    return next((first for first in firsts if not _overlaps(first, held)), None)


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
