"""What limits.io comes to: which cell of which cgroup file is to hold what, for which disk. Pure.

Sources: Documentation/admin-guide/cgroup-v2.rst (IO) and cgroup-v1/blkio-controller.rst; block/blk-throttle.c,
blk-iocost.c, blk-iolatency.c, bfq-cgroup.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from controller.aspects._knobs import Knob, Live
from controller.frozen import dataclass
from controller.model.disks import Backing, Disk
from controller.model.keyed import Cell
from controller.model.quantity import parse_byte_rate, parse_duration

V1_FILES = {
    "read": "blkio.throttle.read_bps_device",
    "write": "blkio.throttle.write_bps_device",
    "readIops": "blkio.throttle.read_iops_device",
    "writeIops": "blkio.throttle.write_iops_device",
}
V2_FIELDS = {"read": "rbps", "write": "wbps", "readIops": "riops", "writeIops": "wiops"}
WRITES = frozenset({"write", "writeIops"})
THROTTLES = frozenset({"io.max", *V1_FILES.values()})
SUBSYSTEM = {1: "blkio", 2: "io"}
IOCOST, BFQ_V1, BFQ_V2 = "io.weight", "blkio.bfq.weight", "io.bfq.weight"
UNLIMITED = float("inf")
US_PER_MS = 1000

Amounts = Mapping[str, float]
"""By key: per second, a weight, or microseconds; infinite for `max`. Of several for a disk the smallest counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the list; without a path it is about all disks."""

    path: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Wanted:
    """`version`: of cgroups. `charges`: the kernel can tell who wrote what the page cache writes back."""

    version: int
    entries: tuple[Entry, ...]
    charges: bool

    def weighs(self, *, paths: bool) -> bool:
        return any("weight" in each.amounts for each in self.entries if bool(each.path) is paths)


@dataclass(frozen=True, slots=True)
class Seen:
    """`weighers`: files of weights that this kernel has. `costed`: numbers of the disks where iocost is on.
    `hardware`: all disks, where a weight is for all. `knobs`: every cell that is owned, with these disks. `placed`:
    the group is there, with all its files.
    """

    backings: Mapping[str, Backing] = field(default_factory=dict)
    weighers: frozenset[str] = frozenset()
    costed: frozenset[str] = frozenset()
    hardware: tuple[Disk, ...] = ()
    knobs: tuple[Knob, ...] = ()
    live: Live = field(default_factory=dict)
    placed: bool = False


def bfq_weight(weight: int) -> int:
    """Of 1 to 10000, as cgroup v2 counts, to bfq's 1 to 1000, as systemd does it: up to the default of 100 the same
    number, above it the rest of either scale in proportion (200 is 109, 10000 is 1000).
    """
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900


def entry_of(written: Mapping[str, Any]) -> Entry:
    amounts = {key: _amount(key, value) for key, value in written.items() if key != "path"}
    return Entry(written.get("path", ""), amounts)


def _amount(key: str, value: Any) -> float:
    if value == "max":
        return UNLIMITED
    if key in {"read", "write"}:
        return parse_byte_rate(value)
    return parse_duration(value) * US_PER_MS if key == "latency" else int(value)


def _smallest(amounts: Iterable[Amounts]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in amounts:
        for key, amount in each.items():
            found[key] = min(amount, found.get(key, amount))
    return found


def merged(desired: Wanted, seen: Seen) -> dict[Disk, Amounts]:
    """Pure. By disk. Each entry's own disks come first in the order of the list."""
    found: dict[Disk, list[Amounts]] = {}
    for entry in desired.entries:
        for disk in seen.backings[entry.path].disks if entry.path else ():
            found.setdefault(disk, []).append(entry.amounts)
    return {disk: _smallest(amounts) for disk, amounts in found.items()}


def table(desired: Wanted, seen: Seen) -> list[Knob]:
    """Pure. Every cell that is owned."""
    knobs = [
        knob
        for disk, amounts in merged(desired, seen).items()
        for key, amount in amounts.items()
        for knob in _of_disk(disk, key, amount, desired.version, seen)
    ]
    everywhere = _smallest(each.amounts for each in desired.entries if not each.path)
    for weight in everywhere.values():
        knobs += [_weight_of_all(file, int(weight), desired.version) for file in sorted(seen.weighers)]
    return knobs


def _of_disk(disk: Disk, key: str, amount: float, version: int, seen: Seen) -> Iterator[Knob]:
    if key == "weight":
        yield from (_weight_of(file, disk, int(amount), version) for file in weigh(disk, version, seen))
        return
    if key == "latency" and not disk.bottom:
        return  # it is counted where requests queue
    name = f"io.{disk.name}.{key}"
    text = "max" if amount == UNLIMITED else str(int(amount))
    if version == 2:
        file, word = ("io.latency", "target") if key == "latency" else ("io.max", V2_FIELDS[key])
        yield Knob(name, "io", file, text, text, cell=Cell(disk.number, word))
    elif key in V1_FILES:
        value = "0" if text == "max" else text  # which takes the line away
        yield Knob(name, "blkio", V1_FILES[key], value, text, cell=Cell(disk.number))


def weigh(disk: Disk, version: int, seen: Seen) -> Iterator[str]:
    """Files in which this disk can be given a weight now; the kernel refuses it in others."""
    if disk.scheduler == "bfq":
        yield BFQ_V2 if version == 2 else BFQ_V1
    if disk.number in seen.costed:
        yield IOCOST


def _weight_of(file: str, disk: Disk, weight: int, version: int) -> Knob:
    text = _weight_text(file, weight)
    place = f"{file}_device" if file == BFQ_V1 else file
    cell = Cell(disk.number, unset="default")
    return Knob(f"io.{disk.name}.weight", SUBSYSTEM[version], place, text, text, cell=cell)


def _weight_of_all(file: str, weight: int, version: int) -> Knob:
    text = _weight_text(file, weight)
    return Knob(
        "io.weight",
        SUBSYSTEM[version],
        file,
        text,
        text,
        cell=None if file == BFQ_V1 else Cell("default", unset=""),
    )


def _weight_text(file: str, weight: int) -> str:
    return str(weight if file == IOCOST else bfq_weight(weight))


def absent(knob: Knob, seen: Seen) -> bool:
    return seen.placed and seen.live.get((knob.subsystem, knob.file)) is None


def others(seen: Seen) -> Iterator[tuple[str, str]]:
    """Pure. (file, line) of every limit of the files that are read anyway, which is nobody's wish."""
    owned = {(each.file, each.cell.entry, each.cell.field) for each in seen.knobs if each.cell}
    for (_, file), text in seen.live.items():
        for line in (text or "").splitlines() if file in THROTTLES else ():
            number, *words = line.split()
            pairs = [(word, *word.rpartition("=")[::2]) for word in words]
            left = [
                word for word, name, value in pairs if value != "max" and (file, number, name) not in owned
            ]
            if left:
                yield file, " ".join((number, *left))
