"""Rules between an entry of a container's `networks` and the network that it names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from controller.model.addresses import EVERYWHERE, Subnet, parse_address, parse_destination, parse_interface
from controller.model.network import LEAST_MTU_V6, Network, interfaces_of
from controller.model.resource import NETWORK, Resource, key_of
from controller.spec.misfit import Misfit, Order, at_fault


def interfaces(
    containers: Mapping[str, Resource],
    networks: Mapping[str, Network],
    resources: Mapping[str, Resource],
    order: Order,
) -> Iterator[Misfit]:
    """Pure. Who has changed has to give way: the container, or the network."""
    for wanted in containers.values():
        for index, (_, entry) in enumerate(interfaces_of(wanted)):
            network = networks.get(entry["network"])
            if network is None:
                continue
            late, _ = at_fault(wanted, resources[key_of(NETWORK, network.name)], order)
            for mine, theirs, why in _faults(entry, network):
                if late is wanted:
                    yield Misfit(late, f"spec.networks[{index}].{mine}", why)
                else:
                    yield Misfit(late, f"spec.{theirs}", f"does not fit {wanted.title}: {why}")


def _faults(entry: Mapping[str, Any], network: Network) -> Iterator[tuple[str, str, str]]:
    """(key of the entry, key of the network, what is wrong)."""
    for written in entry.get("addresses", ()):
        why = _misplaced(written, network)
        if why:
            yield "addresses", "subnets", why
    own = [parse_interface(each).network for each in entry.get("addresses", ())]
    subnets: list[Subnet] = own or list(network.subnets)
    mtu = entry.get("mtu") or network.mtu
    if 0 < mtu < LEAST_MTU_V6 and any(each.version == 6 for each in subnets):
        why = (
            f'takes packets of {mtu} bytes, but has IPv6 on network "{network.name}": {LEAST_MTU_V6} at least'
        )
        yield "mtu", "subnets" if "mtu" in entry else "mtu", why
    if entry.get("sysctls", {}).get("ipv6.disable_ipv6") == "1" and any(
        each.version == 6 for each in subnets
    ):
        why = f'turns IPv6 off, but has an address of it on network "{network.name}": write addresses without'
        yield "sysctls", "subnets", why
    near = [*network.subnets, *(each for each in own if each.num_addresses > 1)]
    for index, route in enumerate(entry.get("routes", ())):
        if "via" not in route:
            near.extend(_destination(route["to"]))
        elif near and not _is_near(route["via"], near):
            why = f'has a route via {route["via"]}, which is not of network "{network.name}"'
            yield f"routes[{index}].via", "subnets", why


def _destination(written: str) -> Iterator[Subnet]:
    found = parse_destination(written)
    if found != EVERYWHERE:
        yield ip_network(found)


def _is_near(written: str, subnets: list[Subnet]) -> bool:
    """Whether it is reached without a router in between."""
    via = parse_address(written)
    return via.is_link_local or any(via in each for each in subnets)


def _misplaced(written: str, network: Network) -> str:
    found = network.with_prefix(written)
    if found is None:
        subnets = ", ".join(str(each) for each in network.subnets)
        return f'has the address {written}, which is not of network "{network.name}" ({subnets})'
    if found.ip in network.gateways:
        return f'has the address {written}, which is the gateway of network "{network.name}"'
    if not network.is_for_hosts(found.ip):
        return f"has the address {written}, which stands for the subnet as a whole"
    return ""
