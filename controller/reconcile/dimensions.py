"""What can be promised, and how much of it there is: one row for each sum that is made. Pure.

There is no row for guaranteed processor time: cpu.weight is a share among siblings (cgroup-v2.rst, "Weights"), so
nothing in the kernel could keep such a promise. Guaranteed bandwidth is a part of a network's budget, and one that
does not fit is a spec error (`spec.across_shares`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.frozen import dataclass
from controller.model.facts import Facts
from controller.model.network import group_of
from controller.model.node import Node, Policy, Rule
from controller.model.quantity import about_bytes, format_cpu, parse_bytes, parse_cpu
from controller.model.resource import CONTAINER, GROUP, Resource

Limits = Mapping[str, Any]
"""Sections of limits as written, by path: "limits.memory" → {max: 64Mi}."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """`sort`: which limits it is read from, and which budget of a group. `reserve`: the key in a node's `reserved`.

    `read`: how much a section asks for, None for no limit. `total`: what the host has, 0 where that is not known.
    `show`: an amount for people, rounded up or down.
    """

    key: str
    label: str
    sort: str
    rule: Rule
    reserve: str
    total: Callable[[Facts], int]
    read: Callable[[Limits, Facts], int | None]
    show: Callable[[int, bool], str]

    @property
    def section(self) -> str:
        return f"limits.{self.sort}"


@dataclass(frozen=True, slots=True)
class Room:
    """How much of one dimension may be promised, and what happens beyond."""

    dimension: Dimension
    total: int
    reserved: int
    policy: Policy

    @property
    def capacity(self) -> int:
        return max(0, self.total - self.reserved)

    @property
    def shown(self) -> str:
        """As in: 7.2Gi (8Gi less 800Mi reserved)."""
        show = self.dimension.show
        less = f" ({show(self.total, False)} less {show(self.reserved, False)} reserved)"
        return show(self.capacity, False) + (less if self.reserved else "")


def _bytes(value: Any) -> int | None:
    return None if value in {None, "max"} else parse_bytes(str(value))


def _guaranteed(memory: Limits, facts: Facts) -> int | None:
    """`max` protects all that it may have; None where nothing is guaranteed."""
    written = [memory[each] for each in ("low", "min") if each in memory]
    amounts = [facts.memory_total if (found := _bytes(each)) is None else found for each in written]
    most = _bytes(memory.get("max"))
    return min(max(amounts), *([] if most is None else [most]), facts.memory_total) if amounts else None


def _cpus(cpu: Limits, facts: Facts) -> int | None:
    del facts
    written = cpu.get("max")
    return None if written in {None, "max"} else parse_cpu(str(written))


def _pids(pids: Limits, facts: Facts) -> int | None:
    del facts
    written = pids.get("max")
    return None if written in {None, "max"} else int(written)


def _show_bytes(amount: int, up: bool) -> str:
    return about_bytes(amount, up=up)


DIMENSIONS: tuple[Dimension, ...] = (
    Dimension(
        "memory.guaranteed",
        "memory.low and min",
        "memory",
        "guarantees",
        "memory",
        lambda facts: facts.memory_total,
        _guaranteed,
        _show_bytes,
    ),
    Dimension(
        "memory.max",
        "memory.max",
        "memory",
        "limits",
        "memory",
        lambda facts: facts.memory_total,
        lambda memory, _: _bytes(memory.get("max")),
        _show_bytes,
    ),
    Dimension(
        "memory.swap",
        "memory.swap",
        "memory",
        "limits",
        "",
        lambda facts: facts.swap_total,
        lambda memory, _: _bytes(memory.get("swap")),
        _show_bytes,
    ),
    Dimension(
        "cpu.max",
        "cpu.max",
        "cpu",
        "limits",
        "cpu",
        lambda facts: 1000 * len(facts.cpus),
        _cpus,
        lambda amount, _: f"{format_cpu(amount)} cpus",
    ),
    Dimension(
        "pids.max",
        "pids.max",
        "pids",
        "limits",
        "pids",
        lambda facts: facts.tasks_total,
        _pids,
        lambda amount, _: str(amount),
    ),
)
BY_KEY: Mapping[str, Dimension] = {each.key: each for each in DIMENSIONS}
SORTS: tuple[str, ...] = tuple(dict.fromkeys(each.sort for each in DIMENSIONS))


def limits_of(container: Resource) -> dict[str, Any]:
    """The sections that are counted, as written."""
    written = container.section("limits") or {}
    return {f"limits.{sort}": written[sort] for sort in SORTS if sort in written}


def amounts(limits: Limits, facts: Facts) -> dict[str, int]:
    """What is asked for, by key of the dimension; without those that have no limit."""
    found = {
        each.key: each.read(limits[each.section], facts) for each in DIMENSIONS if each.section in limits
    }
    return {key: amount for key, amount in found.items() if amount is not None}


def rooms(node: Node, facts: Facts) -> dict[str, Room]:
    """By key; swap of a host that has none is none, what is unknown otherwise is not counted at all."""
    found = {
        each.key: Room(
            each, each.total(facts), node.reserved.get(each.reserve, 0), node.overcommit[each.rule]
        )
        for each in DIMENSIONS
    }
    return {key: each for key, each in found.items() if each.total or key == "memory.swap"}


def budgets(resources: Mapping[str, Resource], facts: Facts) -> dict[str, dict[str, int]]:
    """Key of the dimension → group → its budget, for groups that have one."""
    found: dict[str, dict[str, int]] = {each.key: {} for each in DIMENSIONS}
    for group in resources.values():
        if group.kind == GROUP:
            limits = {f"limits.{sort}": group.spec[sort] for sort in SORTS if sort in group.spec}
            for key, amount in amounts(limits, facts).items():
                found[key][group.name] = amount
    return found


def memberships(resources: Mapping[str, Resource]) -> dict[str, dict[str, str]]:
    """Sort of budget → container → its group."""
    members = {
        sort: {
            each.name: name
            for each in resources.values()
            if each.kind == CONTAINER and (name := group_of(each, sort))
        }
        for sort in SORTS
    }
    return {sort: found for sort, found in members.items() if found}
