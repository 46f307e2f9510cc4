"""Worlds to test in without a kernel: facts of the three layouts, and a cgroup tree in memory.

`MemoryCgroups` is held to the same contract as the real driver by tests/contracts/test_cgroups_contract.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from itertools import product

from controller.errors import KnobRefused, StepFailed
from controller.model.disks import Backing, Disk
from controller.model.facts import CORE, Facts, Hierarchy

V1_MOUNTS = (
    Hierarchy("/sys/fs/cgroup/blkio", 1, ("blkio",)),
    Hierarchy("/sys/fs/cgroup/cpu", 1, ("cpu",)),
    Hierarchy("/sys/fs/cgroup/cpuset", 1, ("cpuset",)),
    Hierarchy("/sys/fs/cgroup/freezer", 1, ("freezer",)),
    Hierarchy("/sys/fs/cgroup/hugetlb", 1, ("hugetlb",)),
    Hierarchy("/sys/fs/cgroup/memory", 1, ("memory",)),
    Hierarchy("/sys/fs/cgroup/pids", 1, ("pids",)),
)
V2_MOUNT = Hierarchy("/sys/fs/cgroup", 2, ("cpu", "cpuset", "hugetlb", "memory", "pids", "io"))
UNIFIED = Hierarchy("/sys/fs/cgroup/unified", 2, ("hugetlb",))
HYBRID = (*(each for each in V1_MOUNTS if "hugetlb" not in each.subsystems), UNIFIED)
LAYOUTS = {"v1": V1_MOUNTS, "v2": (V2_MOUNT,), "hybrid": HYBRID, "none": ()}


def facts(
    layout: str,
    *,
    without: tuple[str, ...] = (),
    swap_limits: bool = True,
    pressure: bool = True,
    pressure_window_ms: int = 1,
) -> Facts:
    """A host of four cpus, one memory node, 8Gi of memory, 2Gi of swap, and huge pages of 2 MiB and 1 GiB."""
    hierarchies = tuple(
        Hierarchy(each.mount, each.version, tuple(name for name in each.subsystems if name not in without))
        for each in LAYOUTS[layout]
    )
    return Facts(
        hierarchies=tuple(each for each in hierarchies if each.subsystems or each.version == 2),
        page_size=4096,
        cpus=frozenset(range(4)),
        mems=frozenset({0}),
        kernel="6.12.0",
        machine="x86_64",
        boot_id="boot",
        swap_limits=swap_limits,
        memory_total=8 << 30,
        swap_total=2 << 30,
        tasks_total=32768,
        pressure=pressure,
        pressure_window_ms=pressure_window_ms,
        huge_pages=frozenset({2 << 20, 1 << 30}),
    )


class MemoryDisks:
    """The Disks port without a kernel. `paths`: path → what is behind it; nothing else is there."""

    def __init__(self, paths: Mapping[str, Backing], hardware: tuple[Disk, ...]) -> None:
        self._paths, self._hardware = paths, hardware

    def behind(self, path: str) -> Backing:
        return self._paths.get(path, Backing(lacks="it is not there"))

    def hardware(self) -> tuple[Disk, ...]:
        return self._hardware


class MemoryCgroups:
    """The Cgroups port without a kernel: groups are dictionaries, written text is read back as written, or
    becomes part of a keyed file.
    """

    def __init__(self, known: Facts) -> None:
        self._facts = known
        self._groups: dict[str, dict[str, dict[str, str]]] = {}

    def fill(self, group: str, files: dict[str, str]) -> None:
        """Put files into the group in every hierarchy, whatever their subsystem."""
        for each in self._facts.hierarchies:
            self._groups.setdefault(each.mount, {}).setdefault(group, {}).update(files)

    def children(self, group: str) -> frozenset[str]:
        prefix = group + "/"
        paths = {path for groups in self._groups.values() for path in groups}
        return frozenset(path.removeprefix(prefix).split("/")[0] for path in paths if path.startswith(prefix))

    def homes(self, group: str, peopled: Mapping[str, str] = ...) -> Mapping[str, tuple[str, ...]]:  # type: ignore[assignment]
        return {mount: (group,) for mount, groups in self._groups.items() if group in groups}

    def populated(self, group: str) -> bool:
        return any(
            files.get("cgroup.procs")
            for groups in self._groups.values()
            for path, files in groups.items()
            if path == group or path.startswith(group + "/")
        )

    def place(self, group: str, budgets: Mapping[str, str], last: int) -> None:
        """Without budgets: what moves is a matter of directories, and tested on the kernel."""
        assert not any(budgets.values())
        for mount in budgets:
            groups = self._groups.setdefault(mount, {})
            groups.setdefault(group, {"cgroup.procs": ""})

    def remove(self, group: str, evict: Callable[[], None]) -> None:
        del evict
        for groups in self._groups.values():
            for path in [path for path in groups if path == group or path.startswith(group + "/")]:
                del groups[path]

    def read(self, group: str, subsystem: str, file: str) -> str | None:
        hierarchy = self._facts.hierarchy(subsystem)
        if hierarchy is None:
            return None
        return self._groups.get(hierarchy.mount, {}).get(group, {}).get(file)

    def write(self, group: str, subsystem: str, file: str, value: str) -> None:
        hierarchy = self._facts.hierarchy(subsystem)
        if hierarchy is None:
            raise StepFailed(f"no {subsystem}")
        files = self._groups.get(hierarchy.mount, {}).get(group)
        if files is None:
            raise KnobRefused(f"{hierarchy.path(group)}/{file}", value, errno.ENOENT)
        value = UNLIMITED_V1.get((file, value), value)
        if file == "cgroup.subtree_control":
            value = " ".join({*files.get(file, "").split(), value.removeprefix("+")})
            self._hand_down(hierarchy, group, value)
        if not _ordered({**files, file: value}):
            raise KnobRefused(f"{hierarchy.path(group)}/{file}", value, errno.EINVAL)
        files[file] = keyed(file, files.get(file, ""), value) if file in KEYED else value
        if file == "cgroup.freeze" and subsystem == CORE:
            files["cgroup.events"] = f"populated 1\nfrozen {value}"

    def _hand_down(self, hierarchy: Hierarchy, group: str, subsystems: str) -> None:
        """A group below has the files of huge pages once these are handed down to it."""
        for path, files in self._groups[hierarchy.mount].items():
            if path.rpartition("/")[0] == group and "hugetlb" in subsystems.split():
                for size, kind in product(("2MB", "1GB"), ("", "rsvd.")):
                    files.setdefault(f"hugetlb.{size}.{kind}max", "max")

    def enter(self, group: str, pid: int) -> None:
        for each in self._facts.hierarchies:
            for path, files in self._groups.get(each.mount, {}).items():
                members = [member for member in files.get("cgroup.procs", "").split() if member != str(pid)]
                files["cgroup.procs"] = "\n".join([*members, str(pid)] if path == group else members)


KEYED = {
    "io.max": {"rbps": "max", "wbps": "max", "riops": "max", "wiops": "max"},
    "io.latency": {"target": "0"},
    "io.weight": {},
    "io.bfq.weight": {},
    "blkio.bfq.weight_device": {},
    **{
        f"blkio.throttle.{way}_{what}_device": {"": "0"}
        for way in ("read", "write")
        for what in ("bps", "iops")
    },
}
"""Keyed files: the values of a line that is not shown."""


def keyed(file: str, text: str, value: str) -> str:
    """The text of a keyed file after a write, as the kernel shows it (block/blk-throttle.c, tg_set_limit)."""
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    entry, written = value.split(" ", 1)
    unset = KEYED[file]
    if not unset or "" in unset:
        lines[entry] = written
    else:
        before = dict(word.split("=") for word in lines.get(entry, "").split())
        after = {
            **unset,
            **before,
            **dict(word.replace("target=max", "target=0").split("=") for word in written.split()),
        }
        lines[entry] = " ".join(f"{name}={each}" for name, each in after.items())
    bare = " ".join(f"{name}={each}" if name else each for name, each in unset.items())
    return "\n".join(f"{each} {values}" for each, values in lines.items() if values != bare)


def _ordered(files: dict[str, str]) -> bool:
    """cgroup-v1/memory.rst, "Memory+Swap": the sum's limit never goes below memory's own."""
    own, both = (files.get(f"memory.{name}limit_in_bytes", LARGEST) for name in ("", "memsw."))
    return int(own) <= int(both)


LARGEST = "9223372036854771712"
UNLIMITED_V1 = {
    ("memory.limit_in_bytes", "-1"): LARGEST,
    ("memory.memsw.limit_in_bytes", "-1"): LARGEST,
    ("memory.soft_limit_in_bytes", "-1"): LARGEST,
}
