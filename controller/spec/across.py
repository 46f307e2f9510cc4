"""Rules between resources: what one of them may say depends on the others. Pure.

Where two of them clash, the one that has changed is at fault, or else the later one by file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations

from controller.model.addresses import Published, parse_interface, parse_mac, parse_published
from controller.model.network import Network, interfaces_of, networks_of
from controller.model.resource import CONTAINER, GROUP, NETWORK, NODE, VOLUME, Resource, key_of
from controller.model.volume import volumes_of, written_by
from controller.spec.across_groups import groups, groups_of
from controller.spec.across_interfaces import interfaces
from controller.spec.across_shares import shares
from controller.spec.misfit import Misfit, Order, at_fault, by_seniority, whose

PARTNER = "container:"


def users(resource: Resource, others: Iterable[Resource]) -> tuple[Resource, ...]:
    """Pure. The containers that need it, by name."""
    used = USED.get(resource.kind)
    if used is None:
        return ()
    found = [each for each in others if each.kind == CONTAINER and resource.name in used(each)]
    return tuple(sorted(found, key=lambda each: each.name))


def misfits(resources: Mapping[str, Resource], earlier: Mapping[str, Resource], layout: str) -> list[Misfit]:
    """Pure. `earlier`: what was accepted before, by key; who is as it was is not at fault.

    `layout`: how the host mounts cgroups, on which some rules depend; empty where no host is meant.
    """
    containers = {each.name: each for each in resources.values() if each.kind == CONTAINER}
    written = [each for each in resources.values() if each.kind == NETWORK]
    networks = {each.name: Network.of(each) for each in written}
    order = {
        key: (earlier.get(key) is not None and earlier[key].spec == each.spec, each.file, each.line)
        for key, each in resources.items()
    }
    return [
        *_partners(containers),
        *_references(containers, networks, resources),
        *groups(containers, networks, resources, order, layout),
        *shares(containers, networks, resources, order),
        *_policies(written, networks),
        *_overlaps(written, networks, order),
        *interfaces(containers, networks, resources, order),
        *_twice(containers, networks, order),
        *_hosts(resources, order),
    ]


def _hosts(resources: Mapping[str, Resource], order: Order) -> Iterator[Misfit]:
    nodes = by_seniority((each for each in resources.values() if each.kind == NODE), order)
    for each in nodes[1:]:
        why = f"is a second Node: this host is already described by {whose(nodes[0], each)}"
        yield Misfit(each, "metadata.name", why)


def _partners(containers: Mapping[str, Resource]) -> Iterator[Misfit]:
    for name, wanted in containers.items():
        for partner in sorted(_partner_names(wanted)):
            if partner not in containers:
                why = f'shares a namespace with "{partner}", which no valid file defines'
                yield Misfit(wanted, "spec.namespaces", why)
            elif name in _all_partners(partner, containers):
                why = f'shares a namespace with "{partner}", which shares with it in turn'
                yield Misfit(wanted, "spec.namespaces", why)


def _all_partners(name: str, containers: Mapping[str, Resource]) -> set[str]:
    """Pure. Whose namespaces it shares, and whose they share."""
    found, left = set[str](), [name]
    while left:
        wanted = containers.get(left.pop())
        more = _partner_names(wanted) - found if wanted else set()
        found |= more
        left.extend(more)
    return found


def _partner_names(wanted: Resource) -> set[str]:
    spaces = wanted.section("namespaces") or {}
    values = (value for value in spaces.values() if isinstance(value, str))
    return {value.removeprefix(PARTNER) for value in values if value.startswith(PARTNER)}


USED: Mapping[str, Callable[[Resource], Iterable[str]]] = {
    NETWORK: networks_of,
    GROUP: groups_of,
    VOLUME: volumes_of,
}
"""Kind → the names of that kind that a container cannot be without."""


def _references(
    containers: Mapping[str, Resource], networks: Mapping[str, Network], resources: Mapping[str, Resource]
) -> Iterator[Misfit]:
    for wanted in containers.values():
        on = [networks[each] for each in networks_of(wanted) if each in networks]
        for name in networks_of(wanted):
            if name not in networks:
                yield Misfit(wanted, "spec.networks", f'is on network "{name}", which no valid file defines')
        for name in volumes_of(wanted):
            if key_of(VOLUME, name) not in resources:
                yield Misfit(wanted, "spec.mounts", f'mounts volume "{name}", which no valid file defines')
        yield from _taken_along(wanted, containers)
        known = len(on) == len(networks_of(wanted))
        if wanted.section("ports") and known and not any(each.type == "bridge" for each in on):
            yield Misfit(wanted, "spec.ports", "publishes ports, but is on no bridge")


def _taken_along(wanted: Resource, containers: Mapping[str, Resource]) -> Iterator[Misfit]:
    """A restore takes a volume back: nobody else may be writing to it, or have read what is not true any more."""
    named = (wanted.section("checkpoint") or {}).get("volumes", "private")
    for name in named if isinstance(named, list) else ():
        others = [each for each in containers.values() if each is not wanted and name in volumes_of(each)]
        if name not in written_by(wanted):
            why = f'names volume "{name}", which it does not mount writable'
            yield Misfit(wanted, "spec.checkpoint.volumes", why)
        elif others:
            why = f'names volume "{name}", which {others[0].title} mounts, too: a restore would take it back there'
            yield Misfit(wanted, "spec.checkpoint.volumes", why)


def _policies(written: Iterable[Resource], networks: Mapping[str, Network]) -> Iterator[Misfit]:
    for resource in written:
        for index, rule in enumerate((resource.section("policy") or {}).get("allow", ())):
            name = rule.get("from", {}).get("network")
            if name is not None and name not in networks:
                path = f"spec.policy.allow[{index}].from"
                yield Misfit(resource, path, f'allows network "{name}", which no valid file defines')


def _overlaps(written: list[Resource], networks: Mapping[str, Network], order: Order) -> Iterator[Misfit]:
    for one, other in combinations(written, 2):
        first, second = networks[one.name], networks[other.name]
        if first.device and first.device == second.device:
            late, early = at_fault(one, other, order)
            yield Misfit(
                late, "spec.device", f"takes link {first.device}, which {whose(early, late)} takes, too"
            )
        elif {first.device, second.device} & {first.parent, second.parent} - {""}:
            late, early = at_fault(one, other, order)
            why = f"is at odds with {whose(early, late)}: one takes that link away, the other builds on it"
            yield Misfit(late, "spec.device" if networks[late.name].device else "spec.parent", why)
        if "bridge" not in {first.type, second.type}:
            continue
        for a in first.subnets:
            for b in second.subnets:
                if a.version == b.version and a.overlaps(b):
                    late, early = at_fault(one, other, order)
                    mine, theirs = (b, a) if late is other else (a, b)
                    yield Misfit(
                        late, "spec.subnets", f"overlaps with {whose(early, late)}: {mine} and {theirs}"
                    )


def _twice(
    containers: Mapping[str, Resource], networks: Mapping[str, Network], order: Order
) -> Iterator[Misfit]:
    """What only one container can have: an address or a MAC on a network, a published port, a device."""
    holders: dict[tuple[str, str], Resource] = {}
    published: dict[tuple[str, int], list[tuple[Published, Resource]]] = {}
    for wanted in sorted(containers.values(), key=lambda each: order[each.key][1:]):
        for path, claim in _claims(wanted, networks):
            other = holders.setdefault(claim, wanted)
            if other is not wanted:
                late, early = at_fault(wanted, other, order)
                yield Misfit(late, path, f"has {claim[1]}, which is {whose(early, late)}'s")
                holders[claim] = early
        for text in wanted.section("ports") or ():
            port = parse_published(text)
            others = published.setdefault((port.protocol, port.host_port), [])
            for taken, other in others:
                if other is not wanted and port.clashes(taken):
                    late, early = at_fault(wanted, other, order)
                    yield Misfit(
                        late, "spec.ports", f"publishes {port.text}, which is {whose(early, late)}'s"
                    )
            others.append((port, wanted))


def _claims(wanted: Resource, networks: Mapping[str, Network]) -> Iterator[tuple[str, tuple[str, str]]]:
    for index, (_, entry) in enumerate(interfaces_of(wanted)):
        name, path = entry["network"], f"spec.networks[{index}]"
        for written in entry.get("addresses", ()):
            yield f"{path}.addresses", (name, f"the address {parse_interface(written).ip}")
        if "mac" in entry:
            yield f"{path}.mac", (name, f"the MAC address {parse_mac(entry['mac'])}")
        if name in networks and networks[name].type == "hostDevice":
            yield path, (name, f'network "{name}" to itself')
