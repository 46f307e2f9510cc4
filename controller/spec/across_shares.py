"""Rules of bandwidth between containers, networks and groups. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.model.network import DIRECTIONS, Network, group_of, interfaces_of
from controller.model.quantity import format_rate, parse_rate
from controller.model.resource import GROUP, NETWORK, Resource, key_of
from controller.spec.misfit import Misfit, Order, by_seniority

MOST_SHARERS = 600
"""So many containers can be told apart where a network's bandwidth is shared out."""


def shares(
    containers: Mapping[str, Resource],
    networks: Mapping[str, Network],
    resources: Mapping[str, Resource],
    order: Order,
) -> Iterator[Misfit]:
    """Pure."""
    for wanted in containers.values():
        yield from _alone(wanted, networks)
    for network in networks.values():
        if network.type == "bridge":
            for direction in DIRECTIONS:
                yield from _together(network, direction, containers, resources, order)


def _alone(wanted: Resource, networks: Mapping[str, Network]) -> Iterator[Misfit]:
    """What a container asks for, whatever others do."""
    for index, (_, entry) in enumerate(interfaces_of(wanted)):
        network = networks.get(entry["network"])
        for direction in DIRECTIONS if network else ():
            share, path = entry.get(direction, {}), f"spec.networks[{index}].{direction}"
            if network is None or not share:
                continue
            if direction == "ingress" and network.type != "bridge":
                why = f'limits what it receives, which takes a bridge: network "{network.name}" has none'
                yield Misfit(wanted, path, why)
            elif {"min", "priority"} & set(share) and direction not in network.budget:
                why = (
                    f'wants a part of network "{network.name}", which has no {direction}.max to take it from'
                )
                yield Misfit(wanted, path, why)


def _together(
    network: Network,
    direction: str,
    containers: Mapping[str, Resource],
    resources: Mapping[str, Resource],
    order: Order,
) -> Iterator[Misfit]:
    """Guarantees are kept only where all of them fit; and no more may share than can be told apart."""
    written = resources[key_of(NETWORK, network.name)]
    members = {
        name: (each, index, entry.get(direction, {}))
        for name, each in containers.items()
        for index, (_, entry) in enumerate(interfaces_of(each))
        if entry["network"] == network.name
    }
    budget = network.budget.get(direction, 0)
    sharers = [each for each, _, _ in members.values() if budget or _pool(each, direction, resources)]
    for each in by_seniority(sharers, order)[MOST_SHARERS:]:
        path = f"spec.networks[{members[each.name][1]}].{direction}"
        why = f"is more than {MOST_SHARERS} containers whose {direction} on {written.title} is shared out"
        yield Misfit(each, path, why)
    if budget:
        yield from _promises(written, budget, direction, members, order)
    for name in sorted({group_of(each, "network") for each, _, _ in members.values()} - {""}):
        own = {key: each for key, each in members.items() if group_of(each[0], "network") == name}
        pool = _pool(next(iter(own.values()))[0], direction, resources)
        if pool:
            yield from _promises(*pool, direction, own, order)


def _pool(
    container: Resource, direction: str, resources: Mapping[str, Resource]
) -> tuple[Resource, int] | None:
    """The group that it shares a budget in this direction with, and how much that is."""
    group = resources.get(key_of(GROUP, group_of(container, "network")))
    limit = ((group.section("network") or {}).get(direction) or {}).get("max") if group else None
    return (group, parse_rate(limit)) if group and limit else None


def _promises(
    pool: Resource,
    budget: int,
    direction: str,
    members: Mapping[str, tuple[Resource, int, Mapping[str, Any]]],
    order: Order,
) -> Iterator[Misfit]:
    """`pool`: the network or the group whose budget it is. `members`: by name, (container, which entry, share)."""
    given = 0
    seniority = by_seniority([pool, *(each for each, _, _ in members.values())], order)
    for each in seniority:
        if each is pool:
            continue
        _, index, share = members[each.name]
        least = parse_rate(share["min"]) if "min" in share else 0
        given += least
        path = f"spec.networks[{index}].{direction}"
        if least and given > budget:
            promised, all_of_it = format_rate(given), format_rate(budget)
            why = f"guarantees {promised} of {direction} in {pool.title}, which has {all_of_it}"
            if seniority[-1] is pool:
                yield Misfit(pool, f"spec.{direction}.max", f"is too small: {each.title} {why}")
                return
            yield Misfit(each, path, f"{share['min']} more {why}")
            given -= least
