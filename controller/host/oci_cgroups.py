"""What a runtime is told, and shown, of cgroupfs: neither of them knows where masu has put a container."""

from __future__ import annotations

import os

from controller.host.cgroups.homes import Homes
from controller.model.facts import CORE, Runtime
from controller.model.launch import BindMount

UNIFIED_ROOT = "/sys/fs/cgroup"


def joined(homes: Homes, group: str) -> str:
    """The one path that runc joins in all hierarchies; that of a budget on pure cgroup v2 alone, see `shown`."""
    if homes.facts.layout != "v2":
        return group
    (only,) = homes.facts.hierarchies
    return homes.locate(only, group).removeprefix(only.mount)


def shown(homes: Homes, runtime: Runtime, group: str) -> list[BindMount]:
    """Bind mounts for a mount namespace of the runtime's own.

    crun refuses a hybrid layout: it sees the cgroup2 mount alone. runc joins one path in all hierarchies: where the
    group is in a budget, the budget is shown in the place of the instance.
    """
    core = homes.facts.hierarchy(CORE)
    if runtime.name == "crun" and core and core.mount != UNIFIED_ROOT:
        return [BindMount(core.mount, UNIFIED_ROOT)]
    if not runtime.joins_itself or homes.facts.layout == "v2":
        return []
    places = ((each.path(group), homes.locate(each, group)) for each in homes.facts.hierarchies)
    return [
        BindMount(os.path.dirname(found), os.path.dirname(plain)) for plain, found in places if found != plain
    ]
