"""From a path to the disks behind it: partitions, dm, md, loop devices, overlays, btrfs. Read-only.

Several devices on the way may be one volume: the limits of I/O work on each, and only on whole ones.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from controller.frozen import dataclass
from controller.host import mount_table, syscalls
from controller.host.block_devices import BlockDevices
from controller.host.mountinfo import Mount
from controller.host.text import read_text
from controller.model.disks import Backing, Disk

_CHARGES: Final = frozenset({0xEF53, 0x9123683E, 0x58465342, 0xF2F52010})
"""ext2 to ext4, btrfs, xfs, f2fs: those that charge writeback to a cgroup (cgroup-v2.rst, "Writeback"; magic.h)."""
_COLON: Final = re.compile(r"(?<!\\):")
_DEEPEST: Final = 16
"""Layers, loops and overlays in each other: more than this is a circle."""


@dataclass(frozen=True, slots=True)
class _Start:
    """Numbers of the devices that a file system is on, partitions maybe; or why there are none."""

    numbers: tuple[str, ...] = ()
    lacks: str = ""
    writeback: bool = False


class HostDisks:
    """See `Disks` in `controller.host.ports`. `sys`: where sysfs is mounted. Stateless."""

    def __init__(self, sys: str) -> None:
        self._sys = sys
        self._devices = BlockDevices(sys)

    def behind(self, path: str) -> Backing:
        start = self._start(path, 0)
        disks = self.below(start.numbers)
        if start.numbers and not disks:
            return Backing(lacks=f"{self._sys} does not show the device {start.numbers[0]}")
        return Backing(disks, start.lacks, start.writeback)

    def hardware(self) -> tuple[Disk, ...]:
        return tuple(self._devices.disk(number, bottom=True) for number in self._devices.hardware())

    def below(self, numbers: Iterable[str]) -> tuple[Disk, ...]:
        """Every whole device that these, which may be partitions, are or are made of; each once."""
        return tuple(dict.fromkeys(self._down(numbers, 0)))

    def _down(self, numbers: Iterable[str], depth: int) -> Iterator[Disk]:
        """Each whole device, then those below it."""
        for number in numbers:
            whole = self._devices.whole(number)
            if whole is None or depth > _DEEPEST:
                continue
            file = self._devices.backing_file(whole)
            below = self._start(file, depth + 1).numbers if file else self._devices.below(whole)
            yield self._devices.disk(whole, bottom=not below)
            yield from self._down(below, depth + 1)

    def _start(self, path: str, depth: int) -> _Start:
        try:
            found = os.stat(path)
            if stat.S_ISBLK(found.st_mode):
                return _Start((_number(found.st_rdev),), writeback=True)
            if os.major(found.st_dev):
                return _Start((_number(found.st_dev),), writeback=syscalls.file_system(path) in _CHARGES)
            mounted = mount_table.mounted(path)
        except (FileNotFoundError, NotADirectoryError):
            return _Start(lacks="it is not there")
        except OSError as error:
            return _Start(lacks=f"it cannot be looked at: {os.strerror(error.errno or 0)}")
        if mounted is None or depth > _DEEPEST:
            return _Start(lacks="its mount cannot be found")
        return self._without_device(mounted, depth)

    def _without_device(self, mounted: Mount, depth: int) -> _Start:
        """A file system whose number is not that of a device."""
        if mounted.kind == "overlay":
            return self._overlay(mounted, depth)
        numbers = _devices_in(mounted.source)
        if not numbers:
            return _Start(lacks=f"{mounted.kind} has no disk on this host")
        if mounted.kind == "btrfs":
            return _Start(self._members(numbers), writeback=True)
        return _Start(numbers)

    def _overlay(self, mounted: Mount, depth: int) -> _Start:
        """What is written goes to the upper layer, which comes first; what is read may come from any."""
        first, *others = _layers(mounted.settings)
        start = self._layer(first, depth)
        if start.lacks:
            return _Start(lacks=f"it is an overlay on {first}: {start.lacks}")
        more = (number for each in others for number in self._layer(each, depth).numbers)
        return _Start((*start.numbers, *more), writeback=start.writeback)

    def _layer(self, path: str, depth: int) -> _Start:
        """A relative path is that of whoever mounted it."""
        absent = _Start(lacks="nobody can tell where that is")
        return self._start(path, depth + 1) if path.startswith("/") else absent

    def _members(self, numbers: tuple[str, ...]) -> tuple[str, ...]:
        """All devices of the btrfs that those belong to: mountinfo names one of them."""
        above = f"{self._sys}/fs/btrfs"
        try:
            systems = [f"{above}/{name}/devices" for name in sorted(os.listdir(above))]
        except OSError:
            return numbers
        for devices in systems:
            found = tuple(_members_in(devices))
            if set(found) & set(numbers):
                return found
        return numbers


def _layers(options: Iterable[str]) -> list[str]:
    """Directories of an overlay, uppermost first; overlayfs.rst."""
    pairs = [option.partition("=")[::2] for option in options]
    upper = [path for name, path in pairs if name == "upperdir"]
    lower = [path for name, value in pairs if name == "lowerdir" for path in _COLON.split(value)]
    more = [path for name, path in pairs if name in {"lowerdir+", "datadir+"}]
    return [path.replace("\\:", ":") for path in (*upper, *lower, *more) if path] or [""]


def _members_in(devices: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(devices))
    except OSError:
        return
    for name in names:
        number = read_text(f"{devices}/{name}/dev")
        if number:
            yield number.strip()


def _devices_in(source: str) -> tuple[str, ...]:
    """bcachefs names all of its devices with colons in between."""
    found = []
    for path in source.split(":") if source.startswith("/") else ():
        try:
            seen = os.stat(path)
        except OSError:
            return ()
        if not stat.S_ISBLK(seen.st_mode):
            return ()
        found.append(_number(seen.st_rdev))
    return tuple(found)


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
