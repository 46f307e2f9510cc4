"""Who may take what of the host: from what is asked for, and what was given before, to what is given. Pure.

Whoever holds something keeps it. Of the others, whoever comes first by file and line is asked first; one that does
not fit lets those behind it pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, replace
from heapq import nsmallest
from typing import Any

from controller.frozen import dataclass
from controller.model.facts import Facts
from controller.model.grant import Grant, Grants
from controller.model.node import node_in
from controller.model.resource import CONTAINER, Resource
from controller.model.status import LIMITED, Condition
from controller.reconcile.dimensions import (
    BY_KEY,
    DIMENSIONS,
    SORTS,
    Room,
    amounts,
    budgets,
    limits_of,
    memberships,
    rooms,
)
from controller.reconcile.ledger import Ledger
from controller.steps.runtime import DOES_NOT_FIT

KEYS_OF = {f"limits.{sort}": tuple(each.key for each in DIMENSIONS if each.sort == sort) for sort in SORTS}
"""Section → keys of the dimensions that are read from it."""
OVERCOMMITTED = "Overcommitted"
KEPT = "the edit of its limits is not applied, they stay as they were"
NAMED = 3
"""So many of those who hold something are named."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Sections of limits, as written, and what they come to by dimension."""

    sections: Mapping[str, Any] = field(default_factory=dict)
    amounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class House:
    """Everything that is not about one container: what there is, and who shares budgets with whom."""

    rooms: Mapping[str, Room]
    budgets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, resources: Mapping[str, Resource], facts: Facts) -> House:
        return cls(rooms(node_in(resources), facts), budgets(resources, facts), memberships(resources))

    def ledgers(self) -> dict[str, Ledger]:
        return {
            key: Ledger(self.budgets.get(key, {}), self.groups.get(BY_KEY[key].sort, {}))
            for key in self.rooms
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """`grants`: who holds what from now on. `due`: what each will hold once its limits are in force.

    By container, with the words for people: `waiting`: not born until there is room; `kept`: an edit of limits is
    not applied; `over`: runs, and is more than there is room for. `ledgers`: the sums, by dimension.
    `asked`: what all of this answers.
    """

    grants: Grants = field(default_factory=dict)
    due: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    over: Mapping[str, str] = field(default_factory=dict)
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    asked: Mapping[str, Asked] = field(default_factory=dict)

    @property
    def contended(self) -> bool:
        """Whether it matters to somebody that something is given back."""
        return bool(self.waiting or self.kept or self.over)

    @property
    def unfit(self) -> dict[str, str]:
        """For whom, or for whose edit, there is no room, and why."""
        kept = {name: f"{KEPT}: {why}" for name, why in self.kept.items()}
        return {**self.waiting, **kept}

    def remarks(self, name: str) -> tuple[Condition, ...]:
        """What is to be said of one that was let in."""
        over, kept = self.over.get(name), self.kept.get(name)
        limited = Condition(LIMITED, status=True, reason=OVERCOMMITTED, message=over or "")
        waiting = Condition("Waiting", status=True, reason=DOES_NOT_FIT, message=f"{KEPT}: {kept}")
        return (*([limited] if over else []), *([waiting] if kept else []))

    def without(self, name: str) -> Verdict:
        """Of one that asks for nothing any more, nothing is to be said."""
        if name not in self.waiting:
            return self
        waiting = {each: why for each, why in self.waiting.items() if each != name}
        return replace(self, waiting=waiting)

    def said(self, name: str) -> tuple[str, str, str]:
        return self.waiting.get(name, ""), self.kept.get(name, ""), self.over.get(name, "")


def asked_by(
    resources: Mapping[str, Resource], resting: Collection[str], known: Mapping[str, Asked], facts: Facts
) -> dict[str, Asked]:
    """By file and line; those who want nothing to run ask for nothing. `known`: what was asked the last time."""
    containers = [each for each in resources.values() if each.kind == CONTAINER and each.name not in resting]
    found = {}
    for each in sorted(containers, key=lambda each: (each.file, each.line)):
        limits, before = limits_of(each), known.get(each.name)
        same = before is not None and before.sections == limits
        found[each.name] = before if before and same else Asked(limits, amounts(limits, facts))
    return found


def admit(asked: Mapping[str, Asked], before: Grants, running: Collection[str], house: House) -> Verdict:
    """`asked`: in the order in which they are asked. `before`: all who hold something, whether or not they ask.

    `running`: those who run although nobody knows what they were given: they hold what they ask for.
    """
    unknown = {
        name: Grant(each.sections, each.amounts)
        for name, each in asked.items()
        if name in running and name not in before
    }
    return _Admission(asked, {**before, **unknown}, house).verdict()


class _Admission:
    """One round of it: linear in the number of containers."""

    def __init__(self, asked: Mapping[str, Asked], grants: Mapping[str, Grant], house: House) -> None:
        self._asked, self._house = asked, house
        self._grants, self._ledgers = dict(grants), house.ledgers()
        self._due: dict[str, Mapping[str, int]] = {}
        self._unfit: dict[str, list[str]] = {}
        self._kept: dict[str, list[str]] = {}

    def verdict(self) -> Verdict:
        for name, grant in self._grants.items():
            self._put(name, grant.amounts)
        holders = [name for name in self._grants if name in self._asked]
        for name in holders:
            self._edit(name, self._asked[name], self._grants[name])
        for name in [each for each in self._asked if each not in self._grants]:
            self._enter(name, self._asked[name])
        tell = _Teller(self._house.rooms, self._ledgers, self._asked)
        return Verdict(
            grants=self._grants,
            due=self._due,
            waiting=tell.all_of(self._unfit),
            kept=tell.all_of(self._kept),
            over=tell.all_of(self._over()),
            ledgers=self._ledgers,
            asked=self._asked,
        )

    def _enter(self, name: str, asked: Asked) -> None:
        unfit = self._too_much(name, {key: asked.amounts.get(key) for key in self._ledgers})
        if unfit:
            self._unfit[name] = unfit
            return
        self._grants[name], self._due[name] = Grant(asked.sections, asked.amounts), asked.amounts
        self._put(name, asked.amounts)

    def _edit(self, name: str, asked: Asked, grant: Grant) -> None:
        """Section by section: each is as it is asked for, or as it was."""
        if (asked.sections, asked.amounts) == (grant.sections, grant.amounts):
            self._due[name] = grant.amounts
            return
        sections: dict[str, Any] = {}
        held, due = dict(grant.amounts), dict[str, int]()
        for section, keys in KEYS_OF.items():
            unfit = self._too_much(name, {key: asked.amounts.get(key) for key in keys})
            source, wanted = (grant.sections, grant.amounts) if unfit else (asked.sections, asked.amounts)
            if unfit:
                self._kept.setdefault(name, []).extend(unfit)
            if section in source:
                sections[section] = source[section]
            due.update({key: wanted[key] for key in keys if key in wanted})
        held.update({key: max(amount, held.get(key, 0)) for key, amount in due.items()})
        if any(amount > grant.amounts.get(key, 0) for key, amount in held.items()):
            del self._grants[name]  # what comes on top comes last
        self._grants[name], self._due[name] = Grant(sections, held), due
        self._put(name, held)

    def _too_much(self, name: str, wanted: Mapping[str, int | None]) -> list[str]:
        """Keys of what is refused: it would make a sum larger, and larger than there is room for."""
        found = []
        for key, amount in wanted.items():
            room, ledger = self._house.rooms.get(key), self._ledgers.get(key)
            if room and ledger and room.policy == "refuse":
                total = ledger.total_with(name, amount)
                if total > max(room.capacity, ledger.total):
                    found.append(key)
        return found

    def _put(self, name: str, amounts: Mapping[str, int]) -> None:
        for key, ledger in self._ledgers.items():
            ledger.put(name, amounts.get(key))

    def _over(self) -> dict[str, list[str]]:
        """Of those who run, whoever came last goes over."""
        found: dict[str, list[str]] = {}
        for key, ledger in self._house.ledgers().items():
            room = self._house.rooms[key]
            for name, grant in self._grants.items() if room.policy != "allow" else ():
                before = ledger.total
                ledger.put(name, grant.amounts.get(key))
                if ledger.total > max(room.capacity, before) and name in self._asked:
                    found.setdefault(name, []).append(key)
        return found


class _Teller:
    """Says sums, and who holds what of them."""

    def __init__(
        self, rooms: Mapping[str, Room], ledgers: Mapping[str, Ledger], asked: Mapping[str, Asked]
    ) -> None:
        self._rooms, self._ledgers, self._asked = rooms, ledgers, asked
        self._known: dict[str, tuple[list[str], int, int]] = {}

    def all_of(self, keys: Mapping[str, Iterable[str]]) -> dict[str, str]:
        return {name: "; ".join(self._sum(name, key) for key in each) for name, each in keys.items()}

    def _sum(self, name: str, key: str) -> str:
        """As in: memory.max of 3 containers: 9.5Gi of 7.2Gi: this one 4Gi, db 4Gi, web 1.5Gi."""
        room, ledger = self._rooms[key], self._ledgers[key]
        show, mine = room.dimension.show, self._asked[name].amounts.get(key)
        largest, count, whole = self._holders(key)
        named = [each for each in largest if each != name][:NAMED]
        held = {each: amount for each in (*named, name) if (amount := ledger.shares.get(each))}
        others = count - len(held)
        rest = whole - sum(held.values())
        count += (name not in held) * bool(mine)
        total = show(ledger.total_with(name, mine), True)
        shares = [
            f"this one {show(mine, True)}" if mine else "this one all of its group's",
            *(f"{each} {show(held[each], True)}" for each in named),
            *([f"{others} other{'s' * (others != 1)} {show(rest, True)}"] if others else []),
        ]
        groups = " and groups" * any(each.startswith("group ") for each in held)
        head = f"{room.dimension.label} of {count} container{'s' * (count != 1 or bool(groups))}{groups}"
        return f"{head}: {total} of {room.shown}" + (f": {', '.join(shares)}" if shares[1:] else "")

    def _holders(self, key: str) -> tuple[list[str], int, int]:
        """The largest, one more than are named; how many there are, and what they hold, each for itself."""
        if key not in self._known:
            held = self._ledgers[key].shares
            largest = nsmallest(NAMED + 1, held, key=lambda name: (-held[name], name))
            self._known[key] = largest, len(held), sum(held.values())
        return self._known[key]
