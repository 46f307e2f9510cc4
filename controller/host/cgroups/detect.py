"""Finds the cgroup mounts and what each offers. Read-only; never mounts anything."""

from __future__ import annotations

import os

from controller.host.mountinfo import mounts
from controller.host.text import read_text
from controller.model.facts import USED_SUBSYSTEMS, Hierarchy


def hierarchies() -> tuple[Hierarchy, ...]:
    """Every usable cgroup mount below /sys/fs/cgroup, in stable order; a subsystem is served by one mount."""
    found: list[Hierarchy] = []
    taken: set[str] = set()
    for mount, kind, options in _cgroup_mounts():
        offered = _v2_subsystems(mount) if kind == "cgroup2" else options
        subsystems = tuple(each for each in USED_SUBSYSTEMS if each in offered and each not in taken)
        if kind == "cgroup2" and not any(each.version == 2 for each in found):
            found.append(Hierarchy(mount, 2, subsystems))
        elif kind == "cgroup" and subsystems:
            found.append(Hierarchy(mount, 1, subsystems))
        taken.update(subsystems)
    return tuple(sorted(found))


def named() -> tuple[str, ...]:
    """Mounts of v1 hierarchies that have a name and no subsystem."""
    return tuple(
        mount
        for mount, kind, options in _cgroup_mounts()
        if kind == "cgroup" and any(option.startswith("name=") for option in options)
    )


def _cgroup_mounts() -> list[tuple[str, str, frozenset[str]]]:
    return [
        (each.target, each.kind, frozenset(each.settings))
        for each in mounts(read_text("/proc/self/mountinfo") or "")
        if each.kind in {"cgroup", "cgroup2"} and os.access(each.target, os.X_OK)
    ]


def _v2_subsystems(mount: str) -> frozenset[str]:
    return frozenset((read_text(mount + "/cgroup.controllers") or "").split())


def swap_limits(found: tuple[Hierarchy, ...]) -> bool:
    """Whether the memory subsystem can limit swap: a file says so, on v2 only below the root."""
    for each in found:
        if "memory" in each.subsystems:
            if each.version == 1:
                return os.path.exists(each.mount + "/memory.memsw.limit_in_bytes")
            return any_child_has(each.mount, "memory.swap.max") or os.path.exists("/proc/swaps")
    return False


def any_child_has(mount: str, file: str) -> bool:
    """Files of limits are not in the root group."""
    with os.scandir(mount) as entries:
        return any(os.path.exists(f"{entry.path}/{file}") for entry in entries if entry.is_dir())
