"""Which limits of disks this host has. Read-only."""

from __future__ import annotations

import os
from collections.abc import Iterator

from controller.host.cgroups import detect
from controller.host.disks import HostDisks
from controller.host.text import read_text
from controller.model.disks import Disk
from controller.model.facts import Facts, Hierarchy
from controller.model.finding import Finding

BOTH = "reads and writes, buffered ones on ext2 to ext4, btrfs, f2fs and xfs"
ON_V2 = "boot with cgroup v2 alone: systemd.unified_cgroup_hierarchy=1"


def findings(facts: Facts) -> Iterator[Finding]:
    """Throttling, then weights by disk, then latency."""
    hierarchy = facts.hierarchy("io") or facts.hierarchy("blkio")
    if hierarchy is None:
        yield Finding("disk limits", "limited", "not there", "a kernel with CONFIG_BLK_CGROUP")
        return
    yield _throttle(hierarchy, facts)
    for disk in HostDisks("/sys").hardware():
        yield _weight(disk, hierarchy)
    yield from _latency(hierarchy)


def _throttle(hierarchy: Hierarchy, facts: Facts) -> Finding:
    if hierarchy.version == 1:
        if not os.path.exists(f"{hierarchy.mount}/blkio.throttle.read_bps_device"):
            return Finding("disk limits", "limited", "not there", "a kernel with CONFIG_BLK_DEV_THROTTLING")
        return Finding("disk limits", "limited", "reads and direct writes, not buffered ones", ON_V2)
    if facts.version("memory") != 2:
        return Finding("disk limits", "limited", "reads and direct writes: memory is on v1", ON_V2)
    return Finding("disk limits", "ok", BOTH)


def _weight(disk: Disk, hierarchy: Hierarchy) -> Finding:
    name, scheduler = f"disk weights, {disk.name}", disk.scheduler or "none"
    costs = (read_text(f"{hierarchy.mount}/io.cost.qos") or "").splitlines()
    costed = any({disk.number, "enable=1"} <= set(line.split()) for line in costs)
    if scheduler == "bfq" or costed:
        return Finding(name, "ok", "iocost" if costed else scheduler)
    fix = f"echo bfq >/sys/block/{disk.name.replace('/', '!')}/queue/scheduler"
    return Finding(name, "limited", f"the scheduler {scheduler} does not weigh", fix)


def _latency(hierarchy: Hierarchy) -> Iterator[Finding]:
    """On v2 only groups that have limits of disks tell; where there is none, nobody knows."""
    if hierarchy.version == 1:
        yield Finding("disk latency", "limited", "not on cgroup v1", ON_V2)
    elif detect.any_child_has(hierarchy.mount, "io.latency"):
        yield Finding("disk latency", "ok", "io.latency")
    elif detect.any_child_has(hierarchy.mount, "io.max"):
        yield Finding("disk latency", "limited", "not there", "a kernel with CONFIG_BLK_CGROUP_IOLATENCY")
