"""limits.io: how much and how often a container may read and write its disks, and whose turn it is.

Written are paths; limited are the whole disks behind them, each on the way down, because the kernel throttles each
on its own: where one volume spans several disks, the one on top is exact. Sources: Documentation/admin-guide/
cgroup-v2.rst (IO, Writeback) and cgroup-v1/blkio-controller.rst; block/blk-throttle.c, blk-iocost.c, bfq-cgroup.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.aspects import _knobs
from controller.aspects._base import Birth, Subject
from controller.aspects._io_table import (
    BFQ_V1,
    BFQ_V2,
    IOCOST,
    SUBSYSTEM,
    UNLIMITED,
    WRITES,
    Seen,
    Wanted,
    absent,
    entry_of,
    merged,
    others,
    table,
    weigh,
)
from controller.errors import HostLacks
from controller.host.ports import Host
from controller.model.disks import Backing, Disk
from controller.model.facts import Facts
from controller.model.status import HOST_LACKS, LIMITED, Condition
from controller.steps._base import Effect, Step


class Io:
    name = "io"
    section = "limits.io"
    keys: Mapping[str, Effect] = _knobs.live_keys(
        "io", ("read", "write", "readIops", "writeIops", "weight", "latency")
    )

    def parse(self, section: Any, facts: Facts) -> Wanted | None:
        """Pure. Raises HostLacks where there is neither an io nor a blkio subsystem."""
        if not section:
            return None
        version = facts.version("io") or facts.version("blkio")
        if version is None:
            raise HostLacks(
                "limits.io: the kernel or the cgroup layout has neither an io nor a blkio subsystem"
            )
        entries = tuple(entry_of(each) for each in section)
        return Wanted(version, entries, charges=version == facts.version("memory") == 2)

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only. A path that appears later is found by the look after that."""
        if desired is None:
            return Seen()
        backings = {each.path: host.disks.behind(each.path) for each in desired.entries if each.path}
        hardware = host.disks.hardware() if desired.weighs(paths=False) else ()
        weighers, costed = _weighers(desired, backings, hardware, host)
        seen = Seen(backings, weighers, costed, hardware)
        knobs = tuple(table(desired, seen))
        live = _knobs.observe(subject, host, knobs)
        placed = None not in live.values() or _placed(subject, host, desired.version)
        return replace(seen, knobs=knobs, live=live, placed=placed)

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure. What the kernel has no file for is a remark."""
        knobs = [each for each in observed.knobs if not absent(each, observed)]
        return _knobs.diff(subject, knobs, observed.live)

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Limits go with the group."""
        del subject, observed
        return []

    def remarks(self, desired: Wanted, observed: Seen) -> list[Condition]:
        """Pure. What of it this host does not do, or only in part."""
        return [
            *_without_disk(desired, observed),
            *_without_file(desired, observed),
            *_direct_only(desired, observed),
            *_not_weighed(desired, observed),
            *_others(observed),
        ]


class SharedIo(Io):
    """The same for the budget of a group."""

    def parse(self, section: Any, facts: Facts) -> Wanted | None:
        """Pure. cgroup v1 throttles each group by itself, whatever the one above may do (block/blk-throttle.c)."""
        wanted = super().parse(section, facts)
        if wanted and wanted.version == 1:
            raise HostLacks("io: cgroup v1 cannot share disk bandwidth among containers; it needs cgroup v2")
        return wanted


def _weighers(
    desired: Wanted, backings: Mapping[str, Backing], hardware: tuple[Disk, ...], host: Host
) -> tuple[frozenset[str], frozenset[str]]:
    """Read-only. (files of weights for all disks, numbers of the disks where iocost is on).

    Files of weights are not in the root group; others that come with them are.
    """
    if not (desired.weighs(paths=True) or desired.weighs(paths=False)):
        return frozenset(), frozenset()
    if desired.version == 1:
        there = host.cgroups.read("", "blkio", "blkio.bfq.io_serviced") is not None
        return frozenset({BFQ_V1} if there else ()), frozenset()
    costs = host.cgroups.read("", "io", "io.cost.qos")
    lines = (line.split() for line in (costs or "").splitlines())
    costed = frozenset(words[0] for words in lines if "enable=1" in words)
    disks = (*hardware, *(disk for each in backings.values() for disk in each.disks))
    files = {IOCOST} if costs is not None else set()
    files |= {BFQ_V2} if any(disk.scheduler == "bfq" for disk in disks) else set()
    return frozenset(files), costed


def _placed(subject: Subject, host: Host, version: int) -> bool:
    hierarchy = host.facts.hierarchy(SUBSYSTEM[version])
    return hierarchy is not None and hierarchy.mount in host.cgroups.homes(subject.group)


def _without_disk(desired: Wanted, seen: Seen) -> Iterator[Condition]:
    for entry in desired.entries:
        lacks = seen.backings[entry.path].lacks if entry.path else ""
        if lacks:
            yield _lacks("NoDisk", f"limits.io {entry.path}: {lacks}")


def _without_file(desired: Wanted, seen: Seen) -> Iterator[Condition]:
    if desired.version == 1:
        for entry in desired.entries:
            if entry.amounts.get("latency", UNLIMITED) < UNLIMITED:
                yield _lacks("NoIoLatency", f"limits.io {entry.path}: latency needs cgroup v2")
    files = {each.file: each.key for each in seen.knobs if absent(each, seen) and each.accepted != "max"}
    for file, key in files.items():
        yield _lacks("NoIoFile", f"limits.io: {key}: this kernel has no {file}")
    if desired.weighs(paths=False) and not seen.weighers:
        yield _lacks("NoIoWeight", "limits.io: weight: this kernel has neither bfq for cgroups nor iocost")


def _direct_only(desired: Wanted, seen: Seen) -> Iterator[Condition]:
    for entry in desired.entries:
        limited = any(entry.amounts.get(key, UNLIMITED) < UNLIMITED for key in WRITES)
        backing = seen.backings.get(entry.path, Backing())
        if limited and backing.disks and not (desired.charges and backing.writeback):
            held = "only direct I/O and reads are held back; buffered writes are not"
            yield _limited("DirectIoOnly", f"limits.io {entry.path}: {_where(desired)} {held}")


def _where(desired: Wanted) -> str:
    if desired.version == 1:
        return "on cgroup v1"
    return "on this file system" if desired.charges else "with memory on cgroup v1"


def _not_weighed(desired: Wanted, seen: Seen) -> Iterator[Condition]:
    """Of the disks at the bottom: what lies above them does not queue. One remark for each scheduler."""
    disks = [disk for disk, amounts in merged(desired, seen).items() if "weight" in amounts]
    idle: dict[str, list[str]] = {}
    for disk in dict.fromkeys((*disks, *seen.hardware)):
        if disk.bottom and not any(weigh(disk, desired.version, seen)):
            idle.setdefault(disk.scheduler or "none", []).append(disk.name)
    iocost = "" if desired.version == 1 else ", or turn iocost on (io.cost.qos)"
    for scheduler, names in idle.items():
        yield _limited(
            "NoWeightScheduler",
            f"limits.io: weight does nothing on {', '.join(names)} with the scheduler {scheduler}:"
            f" write bfq into /sys/block/{names[0].replace('/', '!')}/queue/scheduler{iocost}",
        )


def _others(seen: Seen) -> Iterator[Condition]:
    for file, line in others(seen):
        held = f"limits.io: {file} also says {line}, which no entry of the list does"
        yield _limited(
            "OtherLimits", f"{held}; it holds until an entry says max, or the container is removed"
        )


def _lacks(reason: str, message: str) -> Condition:
    return Condition(HOST_LACKS, status=True, reason=reason, message=message)


def _limited(reason: str, message: str) -> Condition:
    return Condition(LIMITED, status=True, reason=reason, message=message)
