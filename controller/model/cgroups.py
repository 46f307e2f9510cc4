"""Where cgroups are, below every mount: /masu/<instance>/<container>, or one level deeper in a budget. Pure.

The budget of a `kind: Group` is a group of its own, /masu/<instance>/@<group>: no container can have that name.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.model.resource import CONTAINER, GROUP, INSTANCE, key_of, kind_of, name_of

BUDGET = "@"

SUBSYSTEMS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("cpu", "cpuset"),
    "memory": ("memory",),
    "pids": ("pids",),
    "io": ("io", "blkio"),
    "hugepages": ("hugetlb",),
}
"""Sort of budget → the subsystems that count it, on cgroup v1 or v2."""


def cgroup_of(root: str, key: str) -> str:
    """`root`: that of the instance. What has no cgroup gets a path at which there is none."""
    if kind_of(key) == INSTANCE:
        return root
    if kind_of(key) == GROUP:
        return in_budget_of(root, name_of(key))
    return f"{root}/{key}"


def key_of_directory(name: str) -> str:
    """Whose the directory is: a container's, or a budget's."""
    return key_of(GROUP, name.removeprefix(BUDGET)) if name.startswith(BUDGET) else key_of(CONTAINER, name)


def in_budget_of(root: str, budget: str) -> str:
    """The budget's own path."""
    return f"{root}/{BUDGET}{budget}"


def in_budget(group: str, budget: str) -> str:
    """The container's path in a budget; in none where that is empty."""
    root, _, name = group.rpartition("/")
    return f"{root}/{BUDGET}{budget}/{name}" if budget else group


def budget_of(group: str, path: str) -> str | None:
    """The budget in which a path, as in /proc/PID/cgroup, is the container's; empty: in none; None: not its own."""
    if path == group:
        return ""
    root, _, name = group.rpartition("/")
    if not path.startswith(f"{root}/"):
        return None
    first, *rest = path.removeprefix(f"{root}/").split("/")
    if first == name:
        return ""
    return first.removeprefix(BUDGET) if first.startswith(BUDGET) and rest[:1] == [name] else None
