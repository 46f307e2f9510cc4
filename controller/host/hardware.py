"""The Hardware port: which device nodes the host has, from /dev and sysfs. Read-only.

Sources: Documentation/ABI/testing/sysfs-uevent, Documentation/ABI/stable/sysfs-bus-usb,
Documentation/admin-guide/sysfs-rules.rst (a device is found by its subsystem, and its parents by its real path).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from controller.host.text import read_text
from controller.model.device import HostNode, Match

_DEVTMPFS: Final = "/dev/"
_FLAGS: Final = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)
_INSTRUCTIONS: Final = re.compile(
    r"(abm|adx|aes|amx|asimd|atomics|avx|bmi|crc32|cx16|f16c|fma|gfni|lahf|movbe|movdir|pclmul|pmull|popcnt|rdrand|rdseed"
    r"|serialize|sha|sm[34]|sse|ssse|sve|sme(?!p)|vaes|vpclmul|xsave)"
)


class SysfsHardware:
    """Thread-safe. What a match found is remembered until the kernel has told of any device: it counts that.

    `sysfs`: where it is mounted.
    """

    def __init__(self, sysfs: str) -> None:
        self._sysfs = sysfs
        self._lock = threading.Lock()
        self._known: dict[Match, tuple[HostNode, ...]] = {}
        self._known_at = ""

    def cpu_features(self) -> tuple[str, ...]:
        """Of the first cpu in /proc/cpuinfo: what programs look for, not what the kernel does about its faults."""
        found = _FLAGS.search(read_text("/proc/cpuinfo") or "")
        return tuple(sorted(filter(_INSTRUCTIONS.match, found[1].split()))) if found else ()

    def at(self, path: str) -> HostNode | None:
        """Symbolic links are followed: udev's names are such. None: nothing is there, or no device node."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        kind = _kind(found.st_mode)
        name = path.removeprefix(_DEVTMPFS) if path.startswith(_DEVTMPFS) else os.path.basename(path)
        return HostNode(name, kind, os.major(found.st_rdev), os.minor(found.st_rdev)) if kind else None

    def matching(self, match: Match) -> tuple[HostNode, ...]:
        """Sorted by name. The number is read before the devices: a change in between is noticed the next time."""
        at = (read_text(f"{self._sysfs}/kernel/uevent_seqnum") or "").strip()
        with self._lock:
            if at != self._known_at or not at:
                self._known, self._known_at = {}, at
            elif match in self._known:
                return self._known[match]
        found = tuple(sorted(node for path in self._devices(match.subsystem) for node in _node(path, match)))
        with self._lock:
            if self._known_at == at:
                self._known[match] = found
        return found

    def _devices(self, subsystem: str) -> Iterator[str]:
        """Directories of devices, as real paths; without a subsystem: of all that have a node."""
        of_one = (f"class/{subsystem}", f"bus/{subsystem}/devices")
        for place in of_one if subsystem else ("dev/char", "dev/block"):
            directory = f"{self._sysfs}/{place}"
            with contextlib.suppress(OSError):
                for each in os.listdir(directory):
                    yield _target(directory, each)


def _target(directory: str, entry: str) -> str:
    """Entries are links into /sys/devices, except in a few old classes."""
    try:
        return os.path.normpath(os.path.join(directory, os.readlink(f"{directory}/{entry}")))
    except OSError:
        return f"{directory}/{entry}"


def _node(path: str, match: Match) -> Iterator[HostNode]:
    """The device's node, if it is like that. What costs least is asked first."""
    if match.name and not fnmatchcase(os.path.basename(path), match.name):
        return
    physical = match.vendor or match.product or match.serial or match.driver
    if physical and "/devices/virtual/" in path:
        return
    node = _node_of(path)
    if node and (not physical or _is_like(path, match)):
        yield node


def _node_of(path: str) -> HostNode | None:
    """None: it has none, or is being removed."""
    lines = (read_text(f"{path}/uevent") or "").splitlines()
    said = dict(line.partition("=")[::2] for line in lines)
    numbers = (read_text(f"{path}/dev") or "").strip().split(":")
    if "DEVNAME" not in said or len(numbers) != 2:
        return None
    kind = "b" if os.path.basename(_read_link(f"{path}/subsystem")) == "block" else "c"
    return HostNode(said["DEVNAME"], kind, int(numbers[0]), int(numbers[1]))


def _is_like(path: str, match: Match) -> bool:
    """Looks at the device and those it hangs on, up to the first that says what it is: beyond are hubs."""
    drivers: set[str] = set()
    serials: list[str] = []
    for each in _upwards(path):
        drivers.add(os.path.basename(_read_link(f"{each}/driver")))
        serials += filter(None, [_word(f"{each}/serial")])
        vendor, product = _identity(each)
        if vendor:
            break
    else:
        vendor = product = ""
    asked = (match.vendor, match.product, match.serial)
    has = (vendor, product, serials[0] if serials else "")
    return all(not want or want == found for want, found in zip(asked, has, strict=True)) and (
        not match.driver or match.driver in drivers
    )


def _identity(path: str) -> tuple[str, str]:
    """(vendor, product) of a USB or a PCI device, four hexadecimal digits each; empty for what is neither."""
    vendor = _word(f"{path}/idVendor")
    if vendor:
        return vendor, _word(f"{path}/idProduct")
    vendor = _word(f"{path}/vendor")
    if vendor.startswith("0x"):  # SCSI has a file of that name, too, with a word in it
        return vendor.removeprefix("0x"), _word(f"{path}/device").removeprefix("0x")
    return "", ""


def _upwards(path: str) -> Iterator[str]:
    while os.path.basename(path) not in {"devices", ""}:
        yield path
        path = os.path.dirname(path)


def _word(path: str) -> str:
    return (read_text(path) or "").strip()


def _read_link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _kind(mode: int) -> str:
    return "b" if stat.S_ISBLK(mode) else "c" if stat.S_ISCHR(mode) else ""
