"""Rules between containers and the groups whose budgets they share. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.model.cgroups import SUBSYSTEMS
from controller.model.network import Network, group_of, networks_of
from controller.model.quantity import parse_cpu
from controller.model.resource import GROUP, Resource, key_of
from controller.spec.misfit import Misfit, Order, at_fault, whose

SORTS = ("network", *SUBSYSTEMS)


def groups_of(container: Resource) -> set[str]:
    """Pure. Names of all groups it is in."""
    return {group_of(container, each) for each in SORTS} - {""}


def groups(
    containers: Mapping[str, Resource],
    networks: Mapping[str, Network],
    resources: Mapping[str, Resource],
    order: Order,
    layout: str,
) -> Iterator[Misfit]:
    """Pure. `layout`: how the host mounts cgroups; empty where that is not known."""
    for wanted in (each for each in containers.values() if each.section("group")):
        found = {name: resources.get(key_of(GROUP, name)) for name in sorted(groups_of(wanted))}
        for name, group in found.items():
            if group is None:
                yield Misfit(wanted, "spec.group", f'is in group "{name}", which no valid file defines')
        known = {name: each for name, each in found.items() if each}
        yield from _lacking(wanted, known)
        yield from _without_bridge(wanted, known, networks)
        yield from _too_much_cpu(wanted, known, order)
        if layout == "v2":
            yield from _torn(wanted, known)


def _lacking(wanted: Resource, known: Mapping[str, Resource]) -> Iterator[Misfit]:
    written = wanted.section("group")
    for sort, name in written.items() if isinstance(written, Mapping) else ():
        if name in known and known[name].section(sort) is None:
            yield Misfit(wanted, f"spec.group.{sort}", f'shares {sort} of group "{name}", which has none')


def _without_bridge(
    wanted: Resource, known: Mapping[str, Resource], networks: Mapping[str, Network]
) -> Iterator[Misfit]:
    """A group of several sorts may also have members without a network, as long as none asks for it by name."""
    name, written = group_of(wanted, "network"), wanted.section("group")
    group = known.get(name)
    meant = isinstance(written, Mapping) or (group and set(group.spec) == {"network"})
    on = [networks[each] for each in networks_of(wanted) if each in networks]
    if group and group.section("network") and meant and not any(each.type == "bridge" for each in on):
        yield Misfit(wanted, "spec.group", f'shares bandwidth in group "{name}", but is on no bridge')


def _too_much_cpu(wanted: Resource, known: Mapping[str, Resource], order: Order) -> Iterator[Misfit]:
    """cgroup v1 refuses it (kernel/sched/core.c, tg_cfs_schedulable_down), and on v2 it means nothing."""
    group = known.get(group_of(wanted, "cpu"))
    own, whole = _cpus(wanted.section("limits.cpu")), _cpus(group.section("cpu") if group else None)
    if group and own is not None and whole is not None and own > whole:
        late, early = at_fault(wanted, group, order)
        if late is wanted:
            why = f"is more than {whose(early, late)} has: {own:g} > {whole:g} cpus"
            yield Misfit(wanted, "spec.limits.cpu.max", why)
        else:
            why = f"is less than {whose(early, late)} alone may have: {whole:g} < {own:g} cpus"
            yield Misfit(group, "spec.cpu.max", why)


def _cpus(section: Any) -> float | None:
    written = (section or {}).get("max")
    return None if written in {None, "max"} else float(parse_cpu(str(written)))


def _torn(wanted: Resource, known: Mapping[str, Resource]) -> Iterator[Misfit]:
    """cgroup v2 has one hierarchy: a container is in one group of it."""
    names = {
        sort: name
        for sort in SUBSYSTEMS
        if (name := group_of(wanted, sort)) in known and known[name].section(sort) is not None
    }
    if len(set(names.values())) > 1:
        said = ", ".join(f"{sort} of {name}" for sort, name in names.items())
        why = f"shares {said}: cgroup v2 has one hierarchy for all of them, so all but network must be of one group"
        yield Misfit(wanted, "spec.group", why)
