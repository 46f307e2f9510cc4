"""How the containers of an instance hang together: from what is written to links, addresses, names and rules. Pure.

One container's interface depends on its network, and a network's rules on all containers; here that is worked out
once for all of them, so that each aspect sees nothing but its own part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from controller.frozen import dataclass
from controller.model import marks
from controller.model.addresses import (
    EVERYWHERE,
    parse_destination,
    parse_interface,
    parse_mac,
    parse_ports,
    parse_published,
)
from controller.model.attachment import (
    Attachment,
    Bridge,
    Funnel,
    Lease,
    Leases,
    Names,
    Route,
    Share,
)
from controller.model.firewall import Allowance, FilteredBridge, Firewall, Publication
from controller.model.network import DIRECTIONS, Network, interfaces_of
from controller.model.quantity import parse_rate
from controller.model.resource import CONTAINER, GROUP, NETWORK, Resource
from controller.reconcile import shares

LOOPBACK_LINES = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class Topology:
    """By container: its interfaces and names. By network: its bridge, and the links that share out its bandwidth.
    Of the instance: its firewall, and the versions of IP that the host has to forward."""

    attachments: Mapping[str, tuple[Attachment, ...]] = field(default_factory=dict)
    names: Mapping[str, Names] = field(default_factory=dict)
    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    funnels: Mapping[str, tuple[Funnel, ...]] = field(default_factory=dict)
    firewall: Firewall = field(default_factory=Firewall)
    forwarding: frozenset[int] = frozenset()

    def members(self, network: str) -> tuple[str, ...]:
        """Names of the containers on a network."""
        return tuple(
            name for name, each in self.attachments.items() if any(one.network == network for one in each)
        )


def networks_in(resources: Mapping[str, Resource]) -> dict[str, Network]:
    return {each.name: Network.of(each) for each in resources.values() if each.kind == NETWORK}


def topology(instance: str, resources: Mapping[str, Resource], leases: Leases) -> Topology:
    """Pure."""
    networks = networks_in(resources)
    containers = {each.name: each for each in resources.values() if each.kind == CONTAINER}
    groups = {each.name: each for each in resources.values() if each.kind == GROUP}
    holders = {network: _holders(each) for network, each in leases.items()}
    attachments = {
        name: tuple(_attachments(instance, each, networks, groups, leases, holders))
        for name, each in sorted(containers.items())
    }
    attached = {name: each for name, each in attachments.items() if each}
    firewall = _firewall(instance, networks, containers, attached)
    publish = {each.network for each in firewall.publications if ":" not in each.address}
    return Topology(
        attachments=attached,
        names=dict(_names(containers, attached)),
        bridges={
            name: _bridge(instance, each, publishes=name in publish)
            for name, each in sorted(networks.items())
            if each.type == "bridge"
        },
        funnels={
            name: tuple(shares.funnels(instance, each, groups, containers, attached))
            for name, each in sorted(networks.items())
            if each.type == "bridge"
        },
        firewall=firewall,
        forwarding=frozenset(
            subnet.version for each in networks.values() if each.type == "bridge" for subnet in each.subnets
        ),
    )


def _attachments(
    instance: str,
    container: Resource,
    networks: Mapping[str, Network],
    groups: Mapping[str, Resource],
    leases: Leases,
    holders: Mapping[str, Mapping[str, str]],
) -> Iterator[Attachment]:
    led = set(_led(container))
    for interface, entry in interfaces_of(container):
        network = networks.get(entry["network"])
        if network is None:
            continue
        lease = leases.get(network.name, {}).get(container.name)
        given = lease.addresses if lease else ()
        name, held = container.name, holders.get(network.name, {})
        asked = tuple(_addresses(network, entry.get("addresses", given)))
        whose = {each: held.get(_plain(each), name) for each in asked}
        addresses = tuple(each for each in asked if whose[each] == name)
        routes = tuple(_routes(network, entry, addresses, led))
        yield Attachment(
            network=network.name,
            type=network.type,
            interface=interface,
            link=marks.veth_name(instance, name, network.name) if network.type == "bridge" else "",
            parent=_parent(instance, network),
            mark=marks.container_mark(instance, name, network.name, network.device),
            mac=_mac(instance, name, network, entry),
            mtu=entry.get("mtu", network.mtu),
            addresses=addresses,
            exhausted=() if "addresses" in entry else tuple(_without(network, addresses)),
            taken=tuple((each, whose[each]) for each in asked if whose[each] != name),
            routes=routes,
            settings=_settings(interface, entry.get("sysctls", {})),
            shares={each: _share(entry[each]) for each in DIRECTIONS if each in entry},
            slot=lease.slot if lease else 0,
            publishes=network.type == "bridge" and bool(container.section("ports")),
            funnels={
                each: marks.funnel_name(instance, network.name, each)
                for each in DIRECTIONS
                if shares.is_shared(network, container, groups, each)
            },
            shapers=shares.shapers(network, container, groups, entry),
        )


def _holders(leases: Mapping[str, Lease]) -> dict[str, str]:
    """Address → who was given it. Once for a network, and not for each of those who are on it."""
    return {address: name for name, each in leases.items() for address in each.addresses}


def _plain(address: str) -> str:
    return address.partition("/")[0]


def _parent(instance: str, network: Network) -> str:
    if network.type == "bridge":
        return marks.bridge_name(instance, network.name)
    return network.parent or network.device


def _mac(instance: str, name: str, network: Network, entry: Mapping[str, Any]) -> str:
    """A device that moves in keeps its own, unless one is written."""
    if "mac" in entry:
        return parse_mac(entry["mac"])
    return "" if network.type == "hostDevice" else marks.mac_of(instance, name, network.name)


def _addresses(network: Network, written: Iterable[str]) -> Iterator[str]:
    for each in written:
        found = network.with_prefix(each)
        if found is not None:
            yield str(found)


def _without(network: Network, addresses: Iterable[str]) -> Iterator[str]:
    found = [parse_interface(each).ip for each in addresses]
    return (str(subnet) for subnet in network.subnets if not any(each in subnet for each in found))


def _led(container: Resource) -> Iterator[int]:
    """Families of which a way to everywhere is written, on whatever interface."""
    for _, entry in interfaces_of(container):
        for each in entry.get("routes", ()):
            if parse_destination(each["to"]) == EVERYWHERE:
                yield 6 if ":" in each["via"] else 4


def _routes(
    network: Network, entry: Mapping[str, Any], addresses: Iterable[str], led: set[int]
) -> Iterator[Route]:
    """To everywhere through the first network with a gateway of that family, unless one is written."""
    for each in entry.get("routes", ()):
        yield Route(parse_destination(each["to"]), each.get("via", ""), each.get("metric", 0))
    families = {parse_interface(each).version for each in addresses}
    for gateway in network.gateways:
        if gateway is not None and gateway.version in families - led:
            led.add(gateway.version)
            yield Route(EVERYWHERE, str(gateway))


def _settings(interface: str, sysctls: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found = {}
    for key, value in sysctls.items():
        family, _, name = key.partition(".")
        path = f"/proc/sys/net/{family}/conf/{interface}/{name}"
        found[path] = (f"networks.{interface}.sysctls.{key}", str(value))
    return found


def _share(written: Mapping[str, Any]) -> Share:
    most, least = (parse_rate(written[each]) if each in written else 0 for each in ("max", "min"))
    return Share(most, least, written.get("priority", 4))


def _bridge(instance: str, network: Network, *, publishes: bool) -> Bridge:
    pairs = [(one, subnet) for one, subnet in zip(network.gateways, network.subnets, strict=True) if one]
    return Bridge(
        network=network.name,
        link=marks.bridge_name(instance, network.name),
        mark=marks.network_mark(instance, network.name),
        mac=marks.mac_of(instance, network.name),
        mtu=network.mtu,
        addresses=tuple(f"{one}/{subnet.prefixlen}" for one, subnet in pairs),
        publishes=publishes,
    )


def _names(
    containers: Mapping[str, Resource], attached: Mapping[str, tuple[Attachment, ...]]
) -> Iterator[tuple[str, Names]]:
    """One piece of text for each network, the same for all who are on it."""
    lines: dict[str, list[str]] = {}
    for name, attachments in attached.items():
        for each in attachments:
            for address in each.addresses:
                also = containers[name].section("hostname")
                words = [name, *([also] if also and also != name else [])]
                line = f"{address.partition('/')[0]} {' '.join(words)}\n"
                lines.setdefault(each.network, []).append(line)
    pieces = {network: "".join(found) for network, found in lines.items()}
    for name, container in containers.items():
        if attached.get(name) or container.section("hosts") or container.section("resolver"):
            own = "".join(
                f"{address} {host}\n" for host, address in (container.section("hosts") or {}).items()
            )
            shared = (pieces.get(each.network, "") for each in attached.get(name, ()))
            resolver = container.section("resolver")
            yield (
                name,
                Names(
                    hostname=container.section("hostname") or name,
                    hosts=(LOOPBACK_LINES, own, *shared),
                    resolver=None
                    if resolver is None
                    else {key: tuple(each) for key, each in resolver.items()},
                ),
            )


def _firewall(
    instance: str,
    networks: Mapping[str, Network],
    containers: Mapping[str, Resource],
    attached: Mapping[str, tuple[Attachment, ...]],
) -> Firewall:
    bridges = [each for _, each in sorted(networks.items()) if each.type == "bridge"]
    filtered = tuple(
        FilteredBridge(
            network=each.name,
            link=marks.bridge_name(instance, each.name),
            subnets=tuple(map(str, each.subnets)),
            nat=each.nat,
            within=each.policy.get("within", "allow"),
        )
        for each in bridges
    )
    publications = [
        one for name in sorted(attached) for one in _publications(containers[name], attached[name])
    ]
    rules = [one for each in bridges for one in _allowances(each, networks, containers, attached)]
    return Firewall(filtered, tuple(sorted(publications)), tuple(rules))


def _publications(container: Resource, attachments: Iterable[Attachment]) -> Iterator[Publication]:
    """On the first bridge, for each family it has an address of."""
    first = next((each for each in attachments if each.type == "bridge"), None)
    for text in container.section("ports") or () if first else ():
        port = parse_published(text)
        families = set[bool]()
        for address in (each.partition("/")[0] for each in first.addresses) if first else ():
            is_v6 = ":" in address
            if first and is_v6 not in families and port.host_address and (":" in port.host_address) != is_v6:
                continue
            if first and is_v6 not in families:
                families.add(is_v6)
                host, number = port.host_address, port.host_port
                name, network = container.name, first.network
                yield Publication(port.protocol, host, number, address, port.port, name, network)


def _allowances(
    network: Network,
    networks: Mapping[str, Network],
    containers: Mapping[str, Resource],
    attached: Mapping[str, tuple[Attachment, ...]],
) -> Iterator[Allowance]:
    for rule in network.policy.get("allow", ()):
        chosen = rule.get("from")
        if chosen is None:
            sources = [str(each) for one in networks.values() if one.type == "bridge" for each in one.subnets]
        elif "network" in chosen:
            other = networks.get(chosen["network"])
            sources = [str(each) for each in other.subnets] if other else []
        else:
            sources = _addresses_of(_chosen(chosen, containers), attached, "")
        if "to" in rule:
            targets = _addresses_of(_chosen(rule["to"], containers), attached, network.name)
        else:
            targets = [str(each) for each in network.subnets]
        yield Allowance(
            name=f"{network.name}/{rule['name']}",
            network=network.name,
            sources=tuple(sorted(set(sources))),
            targets=tuple(sorted(set(targets))),
            ports=tuple(sorted(parse_ports(str(each)) for each in rule.get("ports", ()))),
        )


def _chosen(choice: Mapping[str, Any], containers: Mapping[str, Resource]) -> list[str]:
    if "container" in choice:
        return [choice["container"]]
    wanted = choice.get("labels", {}).items()
    return [name for name, each in containers.items() if wanted <= each.labels.items()]


def _addresses_of(
    names: Iterable[str], attached: Mapping[str, tuple[Attachment, ...]], network: str
) -> list[str]:
    """On that network, or on all where none is given."""
    return [
        address.partition("/")[0]
        for name in names
        for each in attached.get(name, ())
        if network in {"", each.network}
        for address in each.addresses
    ]
