"""Rules of networks and interfaces that a schema cannot say, inside one document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Any

from controller.errors import Problem
from controller.model.addresses import (
    EVERYWHERE,
    Subnet,
    parse_address,
    parse_destination,
    parse_interface,
    parse_published,
)
from controller.model.network import DIRECTIONS, LEAST_MTU_V6, Network, interfaces_of
from controller.model.quantity import parse_rate
from controller.model.resource import Resource

if TYPE_CHECKING:
    from controller.spec.document import Document

BELONGS_TO = {
    "parent": "macvlan",
    "device": "hostDevice",
    "nat": "bridge",
    "egress": "bridge",
    "ingress": "bridge",
    "policy": "bridge",
}
NOT_FOR_LINKS = {
    "lo": "lo is the loopback interface",
    "all": "all is how the kernel's settings name every interface",
    "default": "default is how the kernel's settings name interfaces to come",
}
NO_NETWORK = (
    "ports need a network to lead to: write networks: [{network: NAME}],"
    " and a document of kind: Network with that name"
)
NEEDS = {"bridge": "subnets", "macvlan": "parent", "hostDevice": "device"}


def network(document: Document, wanted: Resource) -> Iterator[Problem]:
    """Pure."""
    kind = wanted.spec.get("type", "bridge")
    for key, owner in BELONGS_TO.items():
        if key in wanted.spec and kind != owner:
            yield document.problem(("spec", key), f"{key} is for a {owner}, and this is a {kind}")
    if not wanted.spec.get(NEEDS[kind]):
        yield document.problem(("spec",), f"a {kind} needs {NEEDS[kind]}")
    for key in ("parent", "device"):
        if wanted.spec.get(key) == "lo":
            yield document.problem(("spec", key), f"lo cannot be a {key}: each namespace has its own")
    found = Network.of(wanted)
    yield from _subnets(document, found)
    yield from _gateways(document, found, wanted.spec.get("gateways", ()))
    names = [each["name"] for each in found.policy.get("allow", ())]
    for index, name in enumerate(names):
        if name in names[:index]:
            path = ("spec", "policy", "allow", index, "name")
            yield document.problem(path, f'there is a rule "{name}" already')


def _subnets(document: Document, found: Network) -> Iterator[Problem]:
    for one, other in combinations(found.subnets, 2):
        if one.version == other.version and one.overlaps(other):
            index = found.subnets.index(other)
            yield document.problem(("spec", "subnets", index), f"{other} overlaps with {one}")
    if found.mtu and found.mtu < LEAST_MTU_V6 and any(each.version == 6 for each in found.subnets):
        yield document.problem(("spec", "mtu"), f"IPv6 needs an MTU of at least {LEAST_MTU_V6}")


def _gateways(document: Document, found: Network, written: tuple[str, ...]) -> Iterator[Problem]:
    seen: set[Subnet] = set()
    for index, text in enumerate(written):
        address = parse_address(text)
        subnet, path = found.subnet_of(address), ("spec", "gateways", index)
        if subnet is None:
            yield document.problem(path, f"{text} is in none of the subnets")
        elif not found.is_for_hosts(address):
            yield document.problem(path, f"{text} stands for the subnet as a whole")
        elif subnet in seen:
            yield document.problem(path, f"{subnet} has a gateway already")
        if subnet is not None:
            seen.add(subnet)


def interfaces(document: Document, wanted: Resource, spaces: Mapping[str, Any]) -> Iterator[Problem]:
    """Pure. Of one container: `networks`, `ports`, and what needs them."""
    for section in ("networks", "ports"):
        if wanted.section(section) and spaces.get("net", "private") != "private":
            yield document.problem(("spec", section), f"{section} need a private net namespace")
    if wanted.section("ports") and not wanted.section("networks"):
        yield document.problem(("spec", "ports"), NO_NETWORK)
    names: set[str] = set()
    on: set[str] = set()
    ways: set[tuple[str, int, int]] = set()
    for index, (name, entry) in enumerate(interfaces_of(wanted)):
        path = ("spec", "networks", index)
        if name in NOT_FOR_LINKS:
            yield document.problem((*path, "interface"), NOT_FOR_LINKS[name])
        if name in names:
            yield document.problem((*path, "interface"), f"there is an interface {name} already")
        if entry["network"] in on:
            yield document.problem((*path, "network"), f'it is on network "{entry["network"]}" already')
        names.add(name)
        on.add(entry["network"])
        for number, way in enumerate(_ways(entry)):
            if way in ways:
                why = f"there is a route to {way[0]} of that metric already"
                yield document.problem((*path, "routes", number), why)
            ways.add(way)
        yield from _shares(document, path, entry)
        yield from _addresses(document, path, entry)
    yield from _published(document, wanted.section("ports") or ())


def _ways(entry: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(place, family, metric) of each route: of two that are alike, the kernel keeps one."""
    for each in entry.get("routes", ()):
        version = 6 if ":" in each["to"] + each.get("via", "") else 4
        yield parse_destination(each["to"]), version, each.get("metric", 0)


def _shares(document: Document, path: tuple[str | int, ...], entry: Mapping[str, Any]) -> Iterator[Problem]:
    for direction in DIRECTIONS:
        share = entry.get(direction, {})
        if {"min", "max"} <= set(share) and parse_rate(share["min"]) > parse_rate(share["max"]):
            message = f"min is above max: {share['min']} > {share['max']}"
            yield document.problem((*path, direction, "min"), message)


def _addresses(
    document: Document, path: tuple[str | int, ...], entry: Mapping[str, Any]
) -> Iterator[Problem]:
    found = [parse_interface(each) for each in entry.get("addresses", ())]
    for index, each in enumerate(found):
        if each.ip in [other.ip for other in found[:index]]:
            yield document.problem((*path, "addresses", index), f"{each.ip} is in this list already")
    for index, route in enumerate(entry.get("routes", ())):
        why = _astray(route["to"], route.get("via", ""))
        if why:
            yield document.problem((*path, "routes", index), why)


def _astray(destination: str, via: str) -> str:
    """What is wrong with a route, if anything."""
    if not via:
        everywhere = parse_destination(destination) == EVERYWHERE
        return "a default route needs via: the next router" if everywhere else ""
    router = parse_address(via)
    if destination != EVERYWHERE and ip_network(destination).version != router.version:
        return f"{destination} cannot be reached via {via}: one is IPv4 and the other IPv6"
    if router.is_unspecified or router.is_multicast or router.is_loopback:
        return f"{via} is not the address of a router"
    return ""


def _published(document: Document, written: tuple[str, ...]) -> Iterator[Problem]:
    found = [parse_published(each) for each in written]
    for index, each in enumerate(found):
        if any(each.clashes(other) for other in found[:index]):
            yield document.problem(("spec", "ports", index), f"{each.text} is published already")
