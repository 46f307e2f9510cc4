"""gateways: the host's own addresses on a bridge. Others' on the same bridge stay. Source: ip-address(8).

A subnet in which the host has an address on another link is not taken: it would cut the host off from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from ipaddress import ip_interface
from typing import Any

from controller.aspects import _connected, _ipv6
from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Bridge
from controller.model.facts import Facts
from controller.model.links import AddressSeen, DeleteAddress, LinkSeen, NewAddress, RouteSeen
from controller.steps._base import Effect, Step
from controller.steps.network import AddAddress, AddRoute, RemoveAddress
from controller.steps.runtime import Await

KEY = "gateways"
LOOK_AGAIN_MS = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """`taken`: address that is wanted → (the host's address that is in its subnet, the link that it is on)."""

    bridge: LinkSeen | None
    addresses: tuple[AddressSeen, ...]
    routes: tuple[RouteSeen, ...] = ()
    taken: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    without_ipv6: bool = False


class Gateways:
    name = "gateways"
    section = "bridge"
    keys: Mapping[str, Effect] = {"gateways": Effect.LIVE, "gateways.routes": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Bridge | None:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        wanted: Bridge | None = section
        return wanted

    def birth(self, desired: Bridge) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Bridge | None) -> Seen:
        """Read-only."""
        if desired is None:
            return Seen(None, ())
        link = host.links.link("", desired.link)
        index = link.index if link else 0
        everything = host.links.addresses("")
        live = tuple(each for each in everything if each.index == index)
        missing = set(desired.addresses) - {each.address for each in live}
        others = [each for each in everything if each.index != index] if missing else []
        taken = {each: found for each in missing if (found := _in_the_way(host, each, others))}
        routes = host.links.routes_over("", index) if live else ()
        return Seen(link, live, routes, taken, bool(link) and _ipv6.is_off(host, "", desired.link, missing))

    def diff(self, subject: Subject, desired: Bridge, observed: Seen) -> list[Step]:
        """Pure. New ones come before old ones go."""
        live = {each.address for each in observed.addresses}
        steps: list[Step] = []
        for wanted, (address, link) in sorted(observed.taken.items()):
            message = f"{wanted} on {desired.link} would cut this host off: {link} has {address}"
            until = subject.now_ms + LOOK_AGAIN_MS
            steps.append(Await(subject.name, "SubnetTaken", message, until, f"{KEY}.{wanted}"))
        if observed.without_ipv6:
            steps.append(_ipv6.turned_on(subject, KEY, "", desired.link))
        steps += [
            AddAddress(
                subject.name,
                KEY,
                "missing" if observed.bridge else "absent",
                each,
                (("", NewAddress(desired.link, each)),),
            )
            for each in desired.addresses
            if each not in live and each not in observed.taken
        ]
        if observed.bridge:
            own = [each for each in desired.addresses if each in live]
            steps += [
                AddRoute(subject.name, f"{KEY}.routes", "missing", each.destination, (("", each),))
                for each in _connected.missing(observed.bridge, own, observed.routes)
            ]
        steps += [
            RemoveAddress(
                subject.name, KEY, each.address, "none", (("", DeleteAddress(each.index, each.address)),)
            )
            for each in observed.addresses
            if each.ours and each.address not in desired.addresses
        ]
        return steps

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. They go with the bridge."""
        del subject, observed
        return []


def _in_the_way(host: Host, wanted: str, others: Iterable[AddressSeen]) -> tuple[str, str] | None:
    subnet = ip_interface(wanted).network
    found = next((each for each in others if ip_interface(each.address).ip in subnet), None)
    if found is None:
        return None
    names = (each.name for each in host.links.links("") or () if each.index == found.index)
    return found.address, next(names, f"link {found.index}")
