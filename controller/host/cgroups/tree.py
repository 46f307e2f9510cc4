"""The Cgroups port on real cgroupfs: one driver for v1, v2 and hybrid, guided by the facts."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from controller.errors import HostLacks, KnobRefused, StepFailed
from controller.host.cgroups import carry, v1, v2
from controller.host.cgroups.homes import Homes
from controller.host.text import failed, read_text
from controller.model.cgroups import BUDGET, in_budget
from controller.model.facts import Hierarchy

NOBODY: Final[Mapping[str, str]] = MappingProxyType({})
LEAF_LINKS: Final = 2
"""Of the directory of a group with none below it."""
BUSY_WAIT_S = 2.0
"""How long a removed group may stay busy: the kernel frees it a little after its last process."""


class CgroupTree:
    """Every method may be called from any thread."""

    def __init__(self, homes: Homes) -> None:
        self._homes, self._facts = homes, homes.facts

    def children(self, group: str) -> frozenset[str]:
        """Names of the groups directly below `group`, in any hierarchy."""
        names: set[str] = set()
        for each in self._facts.hierarchies:
            try:
                with os.scandir(each.path(group)) as entries:
                    names.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                continue
        return frozenset(names)

    def homes(self, group: str, peopled: Mapping[str, str] = NOBODY) -> Mapping[str, tuple[str, ...]]:
        """Mount → where the group is on it, with all its files; without mounts on which it is not."""
        found: dict[str, tuple[str, ...]] = {}
        for each in self._facts.hierarchies:
            places = self._homes.located(each, group, each.mount + peopled.get(each.mount, ""))
            whole = tuple(path.removeprefix(each.mount) for path in places if _complete(each, path))
            if whole:
                found[each.mount] = whole
        return found

    def populated(self, group: str) -> bool:
        """cgroup v2 says so itself, v1 has to be walked."""
        for each in self._facts.hierarchies:
            place = self._homes.locate(each, group)
            if each.version == 2:
                events = read_text(f"{place}/cgroup.events") or ""
                found = "populated 1" in events.splitlines()
            else:
                found = any(read_text(f"{path}/cgroup.procs") for path in branches(place))
            if found:
                return True
        return False

    def place(self, group: str, budgets: Mapping[str, str], last: int) -> None:
        """Make the group in these budgets and bring over whoever is in it elsewhere.

        Two directories show that a move goes on; `last` is moved when all others have been.
        """
        for each in self._facts.hierarchies:
            if each.mount not in budgets:
                continue
            wanted = in_budget(group, budgets[each.mount])
            place = each.mount + wanted
            try:
                prepare = v1.prepare if each.version == 1 else v2.prepare
                try:
                    prepare(each.mount, wanted, each.subsystems)
                finally:  # it may have come as far as a directory, which a removal has to find
                    if budgets[each.mount] or os.path.basename(group).startswith(BUDGET):
                        self._homes.look_for_budgets(each.path(os.path.dirname(group)))
                for other in self._homes.places(each, group):
                    if other != place and os.path.isdir(other):
                        carry.over(other, place)
                        _bring_over(other, place, last)
            except OSError as error:
                raise failed(error, "placing cgroup", place) from error
            self._homes.locate(each, group)

    def remove(self, group: str, evict: Callable[[], None]) -> None:
        """Remove the group and whatever was made below it, everywhere; the masu parents go when empty.

        `evict` is called when something is still in it.
        """
        for each in self._facts.hierarchies:
            for place in self._homes.places(each, group):
                _remove(place, evict)
            if os.path.basename(group).startswith(BUDGET):
                self._homes.look_for_budgets(each.path(os.path.dirname(group)))
        for mount in self._facts.named:
            _remove(mount + group, evict)
        for mount in (*(each.mount for each in self._facts.hierarchies), *self._facts.named):
            for parent in _parents(group):
                if not _removed_empty(mount + parent):
                    break

    def read(self, group: str, subsystem: str, file: str) -> str | None:
        """The knob's text without the final newline; None when subsystem, group or file is absent."""
        hierarchy = self._facts.hierarchy(subsystem)
        if hierarchy is None:
            return None
        known = self._homes.path(hierarchy, group)
        text = read_text(f"{known}/{file}")
        if text is None and (found := self._homes.locate(hierarchy, group)) != known:
            text = read_text(f"{found}/{file}")
        return text.rstrip("\n") if text is not None else None

    def write(self, group: str, subsystem: str, file: str, value: str) -> None:
        path = f"{self._homes.locate(self._serving(subsystem), group)}/{file}"
        try:
            _write(path, value)
        except OSError as error:
            raise KnobRefused(path, value, error.errno or 0) from error

    def enter(self, group: str, pid: int) -> None:
        """Move one process into the group everywhere; a process that is gone needs no moving."""
        for path in self._homes.join_files(group):
            try:
                _write(path, str(pid))
            except ProcessLookupError:
                return
            except OSError as error:
                raise KnobRefused(path, str(pid), error.errno or 0) from error

    def _serving(self, subsystem: str) -> Hierarchy:
        hierarchy = self._facts.hierarchy(subsystem)
        if hierarchy is None:
            raise HostLacks(f"this host has no {subsystem} subsystem")
        return hierarchy


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _bring_over(source: str, target: str, last: int) -> None:
    """Everybody in the group and in those below it, until nobody is left: whoever is moved may have forked."""
    deadline = time.monotonic() + BUSY_WAIT_S
    while members := _members(source):
        others = [pid for pid in members if pid != last]
        for pid in others or members:
            with contextlib.suppress(ProcessLookupError):
                _write(f"{target}/cgroup.procs", str(pid))
        if time.monotonic() > deadline:
            raise StepFailed(f"moving the processes of {source}: {members[:5]} stay", path=source)
    _remove(source, lambda: None)


def _members(path: str) -> list[int]:
    texts = (read_text(f"{each}/cgroup.procs") or "" for each in branches(path))
    return sorted({int(word) for text in texts for word in text.split()})


def _complete(hierarchy: Hierarchy, path: str) -> bool:
    """Of a directory that is there."""
    return hierarchy.version == 1 or v2.is_complete(path, hierarchy.subsystems)


def _parents(group: str) -> list[str]:
    """The groups above, innermost first, without the root."""
    parts = group.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _remove(path: str, evict: Callable[[], None]) -> None:
    """A group is busy while a process or another group is in it, and a little longer."""
    deadline = time.monotonic() + BUSY_WAIT_S
    while not _removed(path):
        evict()
        for below in _groups_in(path):
            _remove(below, evict)
        if time.monotonic() > deadline:
            raise StepFailed(f"removing cgroup {path}: still busy", path=path, errno=errno.EBUSY)
        time.sleep(0.001)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise failed(error, "removing cgroup", path) from error
        return False
    return True


def _removed_empty(path: str) -> bool:
    """Links count the groups below. To be refused by rmdir would hold up whoever does something to any group."""
    try:
        if os.stat(path).st_nlink > LEAF_LINKS:
            return False
        os.rmdir(path)
    except OSError:
        return False
    return True


def branches(path: str) -> Iterator[str]:
    """A group's directory and those of all groups below it. Links count those."""
    try:
        leaf = os.stat(path).st_nlink == LEAF_LINKS
    except FileNotFoundError:
        return
    yield path
    for below in () if leaf else _groups_in(path):
        yield from branches(below)


def _groups_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
