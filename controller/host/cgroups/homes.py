"""Where a container's group is on each mount: in the budget that it shares there, or directly below the instance.

The directories themselves say so, and nobody else has to remember it. Read-only.
"""

from __future__ import annotations

import os
import threading

from controller.model.cgroups import BUDGET
from controller.model.facts import CORE, Facts, Hierarchy


class Homes:
    """Thread-safe. Remembers who was found in a budget; asked again with `locate`, it looks again.

    Which budgets there are is remembered as well: only whoever has the instance makes one, and asks for it then.
    Listing the groups of an instance for each of them takes time with their square.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._known: dict[tuple[str, str], str] = {}
        self._budgets: dict[str, tuple[str, ...]] = {}
        self._listing = threading.Lock()

    def path(self, hierarchy: Hierarchy, group: str) -> str:
        """Its directory as far as is known; where it would be, if nothing is."""
        return self._known.get((hierarchy.mount, group)) or hierarchy.path(group)

    def locate(self, hierarchy: Hierarchy, group: str) -> str:
        """Its directory, looked up anew; the one without a budget if it has none or two."""
        place, *in_budgets = self.places(hierarchy, group)
        found = "" if not in_budgets or os.path.isdir(place) else next(filter(os.path.isdir, in_budgets), "")
        if found:
            self._known[hierarchy.mount, group] = found
            return found
        self._known.pop((hierarchy.mount, group), None)
        return place

    def all_of(self, hierarchy: Hierarchy, group: str, peopled: str = "") -> tuple[str, ...]:
        """Every directory of it on this mount: two where somebody was killed in the middle of a move.

        `peopled`: one in which a process was just seen, so that it need not be looked for.
        """
        places = self.places(hierarchy, group)
        return tuple(each for each in places if each == peopled or os.path.isdir(each))

    def located(self, hierarchy: Hierarchy, group: str, peopled: str = "") -> tuple[str, ...]:
        """The same, and where it is is remembered as by `locate`."""
        found = self.all_of(hierarchy, group, peopled)
        if not found or found[0] == hierarchy.path(group):
            self._known.pop((hierarchy.mount, group), None)
        else:
            self._known[hierarchy.mount, group] = found[0]
        return found

    def look_for_budgets(self, above: str) -> None:
        """Remember which there are in this directory of an instance.

        One at a time: else whoever has listed them first might remember that last.
        """
        with self._listing:
            self._budgets[above] = tuple(_budgets(above))

    def places(self, hierarchy: Hierarchy, group: str) -> tuple[str, ...]:
        """Wherever it may be on this mount: in no budget, and in each that there is."""
        root, _, name = group.rpartition("/")
        above = hierarchy.path(root)
        if above not in self._budgets:
            self.look_for_budgets(above)
        return (hierarchy.path(group), *(f"{above}/{budget}/{name}" for budget in self._budgets[above]))

    def directories(self, group: str) -> tuple[str, ...]:
        """Its directory on every mount, looked up anew."""
        return tuple(self.locate(each, group) for each in self.facts.hierarchies)

    def everywhere(self, group: str) -> tuple[str, ...]:
        """All its directories on every mount."""
        return tuple(place for each in self.facts.hierarchies for place in self.all_of(each, group))

    def join_files(self, group: str) -> tuple[str, ...]:
        """The `cgroup.procs` files through which a process enters the group everywhere."""
        return tuple(f"{each}/cgroup.procs" for each in self.directories(group))

    def core(self, group: str) -> str | None:
        """Its directory on the cgroup2 mount, if there is one."""
        core = self.facts.hierarchy(CORE)
        return self.path(core, group) if core else None


def _budgets(path: str) -> list[str]:
    try:
        return sorted(each for each in os.listdir(path) if each.startswith(BUDGET))
    except OSError:
        return []
