"""Block devices as /sys shows them, and what lies below each. Read-only.

Sources: Documentation/ABI/stable/sysfs-block (slaves, loop), and /sys/dev/block, which names devices by number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from controller.host.text import DELETED, read_text
from controller.model.disks import Disk

_CHOSEN: Final = re.compile(r"\[(\S+)\]")


class BlockDevices:
    """`sys`: where sysfs is mounted. Stateless."""

    def __init__(self, sys: str) -> None:
        self._sys = sys

    def whole(self, number: str) -> str | None:
        """The device itself, or the disk that it is a partition of; None: there is no such device."""
        place = self._place(number)
        if not os.path.exists(place):
            return None
        return _line(f"{place}/../dev") if os.path.exists(f"{place}/partition") else number

    def below(self, number: str) -> tuple[str, ...]:
        """Devices, or partitions, that dm, md, bcache and their kin are made of."""
        slaves = f"{self._place(number)}/slaves"
        try:
            names = sorted(os.listdir(slaves))
        except OSError:
            return ()  # a device that has just gone
        numbers = (_line(f"{slaves}/{name}/dev") for name in names)
        return tuple(each for each in numbers if each)

    def backing_file(self, number: str) -> str:
        """Of a loop device; "" for any other, and for one whose file has no name any more."""
        path = _line(f"{self._place(number)}/loop/backing_file") or ""
        return "" if path.endswith(DELETED) else path

    def disk(self, number: str, *, bottom: bool) -> Disk:
        try:
            link = os.readlink(self._place(number))
        except OSError:
            link = number
        return Disk(number, _name(link), self._scheduler(number), bottom)

    def hardware(self) -> Iterator[str]:
        """Numbers of the disks that are no device made of others, and that hold anything."""
        try:
            names = sorted(os.listdir(f"{self._sys}/block"))
        except OSError:
            return
        for name in names:
            place = f"{self._sys}/block/{name}"
            number = _line(f"{place}/dev")
            if number and os.path.exists(f"{place}/device") and _line(f"{place}/size") != "0":
                yield number

    def _place(self, number: str) -> str:
        return f"{self._sys}/dev/block/{number}"

    def _scheduler(self, number: str) -> str:
        text = _line(f"{self._place(number)}/queue/scheduler") or ""
        chosen = _CHOSEN.search(text)
        return chosen[1] if chosen else text


def _line(path: str) -> str | None:
    text = read_text(path)
    return text.strip("\n") if text is not None else None


def _name(link: str) -> str:
    """The kernel writes a slash in a device's name as an exclamation mark (cciss!c0d0)."""
    return os.path.basename(link).replace("!", "/")
