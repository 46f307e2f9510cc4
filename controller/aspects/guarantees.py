"""guarantees: memory that containers are guaranteed, handed down to them by the groups above. cgroup v2 alone.

`memory.low` and `memory.min` protect a group no further than they protect each group above it (cgroup-v2.rst,
"memory.min"), and those nobody has written. So the instance, the parent of all instances, and budgets that
guarantee nothing by themselves get the sum of what is guaranteed below. It must not be more: with
memory_recursiveprot what no child claims is shared out among all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.cgroups import in_budget_of
from controller.model.facts import Facts
from controller.model.quantity import parse_bytes
from controller.steps._base import Effect, Step
from controller.steps.cgroups import SetKnob

FILES = {"low": "memory.low", "min": "memory.min"}
ALL = float("inf")


@dataclass(frozen=True, slots=True)
class Guarantee:
    """`budget`: whose members' sum it is; empty: the instance's. `amount` in bytes of whole pages, or ALL."""

    key: str
    budget: str
    amount: float


@dataclass(frozen=True, slots=True)
class Seen:
    """`live`: (path of a group, file) → text. `others`: file → the sum of other instances."""

    live: Mapping[tuple[str, str], str | None]
    others: Mapping[str, float]


class Guarantees:
    name = "guarantees"
    section = "guarantees"
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> tuple[Guarantee, ...] | None:
        """Pure. `section`: {members: [(budget, limits.memory)], budgets: {name: its own memory}}."""
        if not section or facts.version("memory") != 2:
            return None
        return tuple(each for key in FILES for each in _guarantees(key, section, facts))

    def birth(self, desired: tuple[Guarantee, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: tuple[Guarantee, ...] | None) -> Seen:
        """Read-only."""
        places = {*(_group(subject, each) for each in desired or ()), _parent(subject)}
        live = {
            (group, file): host.cgroups.read(group, "memory", file)
            for group in places
            for file in FILES.values()
        }
        beside = [f"{_parent(subject)}/{each}" for each in host.cgroups.children(_parent(subject))]
        others = {
            file: sum(
                _amount(host.cgroups.read(each, "memory", file)) for each in beside if each != subject.group
            )
            for file in FILES.values()
        }
        return Seen(live, others)

    def diff(self, subject: Subject, desired: tuple[Guarantee, ...], observed: Seen) -> Iterable[Step]:
        """Pure. Nothing is asked of a group that is not there: whoever is placed in it has this looked at again."""
        for each in desired:
            file, group = FILES[each.key], _group(subject, each)
            live = observed.live.get((group, file))
            yield from _set(subject, each.key, group, live, each.amount)
            if not each.budget:
                whole = each.amount + observed.others[file]
                parent = _parent(subject)
                yield from _set(subject, each.key, parent, observed.live.get((parent, file)), whole)

    def remove(self, subject: Subject, observed: Seen) -> Iterable[Step]:
        """Pure. They go with the groups."""
        del subject, observed
        return ()


def _guarantees(key: str, section: Mapping[str, Any], facts: Facts) -> Iterator[Guarantee]:
    sums: dict[str, float] = {"": 0.0}
    for budget, memory in section["members"]:
        sums[budget] = sums.get(budget, 0.0) + _written(memory, key, facts)
    own = {name: memory for name, memory in section["budgets"].items() if key in memory}
    for budget, amount in sums.items():
        if budget and budget not in own:
            yield Guarantee(key, budget, amount)
    in_budgets = sum(
        _written(own[name], key, facts) if name in own else sums[name] for name in {*sums, *own} - {""}
    )
    yield Guarantee(key, "", sums[""] + in_budgets)


def _written(memory: Mapping[str, Any], key: str, facts: Facts) -> float:
    text = str(memory.get(key, 0))
    return ALL if text == "max" else parse_bytes(text) // facts.page_size * facts.page_size


def _group(subject: Subject, each: Guarantee) -> str:
    return in_budget_of(subject.group, each.budget) if each.budget else subject.group


def _parent(subject: Subject) -> str:
    return subject.group.rpartition("/")[0]


def _amount(text: str | None) -> float:
    words = (text or "").split()
    return ALL if words == ["max"] else float(words[0]) if words else 0.0


def _set(subject: Subject, key: str, group: str, live: str | None, amount: float) -> Iterator[Step]:
    if live is None or _amount(live) == amount:
        return
    value = "max" if amount == ALL else str(int(amount))
    yield SetKnob(subject.name, group, f"memory.{key} of {group}", "memory", FILES[key], value, value, live)
