"""addresses: of the container's interfaces. Those that others add beside masu's stay. Source: ip-address(8).

Which ones masu has added, the kernel remembers (IFA_PROTO, Linux 5.18).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.aspects import _ipv6
from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Attachment
from controller.model.facts import Facts
from controller.model.links import AddressSeen, DeleteAddress, LinkSeen, NewAddress
from controller.steps._base import Effect, Step
from controller.steps.network import AddAddress, RemoveAddress
from controller.steps.runtime import Await

LOOK_AGAIN_MS = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """`without_ipv6`: names of interfaces that lack an address of IPv6 and cannot have one."""

    links: tuple[LinkSeen, ...]
    addresses: tuple[AddressSeen, ...]
    without_ipv6: frozenset[str] = frozenset()


class Addresses:
    name = "addresses"
    section = "networks"
    keys: Mapping[str, Effect] = {"networks.addresses": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> tuple[Attachment, ...] | None:
        """Pure. `section`: the attachments, resolved by `controller.reconcile.topology`."""
        del facts
        return tuple(section) if section else None

    def birth(self, desired: tuple[Attachment, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: tuple[Attachment, ...] | None) -> Seen:
        """Read-only."""
        if desired is None:
            return Seen((), ())
        links, addresses = host.links.links(subject.name) or (), host.links.addresses(subject.name)
        off = set()
        for wanted in desired:
            link = _of(wanted, links)
            there = {each.address for each in addresses if link and each.index == link.index}
            if link and _ipv6.is_off(host, subject.name, link.name, set(wanted.addresses) - there):
                off.add(wanted.interface)
        return Seen(links, addresses, frozenset(off))

    def diff(self, subject: Subject, desired: tuple[Attachment, ...], observed: Seen) -> list[Step]:
        """Pure. New ones come before old ones go, so that there is always one."""
        steps: list[Step] = []
        for wanted in desired:
            steps.extend(_starve(subject, wanted))
            link = _of(wanted, observed.links)
            if link and wanted.interface in observed.without_ipv6:
                steps.append(
                    _ipv6.turned_on(subject, f"networks.{wanted.interface}", subject.name, link.name)
                )
            live = [each for each in observed.addresses if link and each.index == link.index]
            steps.extend(_add(subject, wanted, {each.address for each in live}))
            steps.extend(_take(subject, wanted, live))
        return steps

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. They go with their interfaces."""
        del subject, observed
        return []


def _of(wanted: Attachment, links: tuple[LinkSeen, ...]) -> LinkSeen | None:
    return next((each for each in links if each.alias == wanted.mark), None)


def _starve(subject: Subject, wanted: Attachment) -> Iterator[Step]:
    if wanted.exhausted:
        message = f"network {wanted.network} has no free address in {', '.join(wanted.exhausted)}"
        until = subject.now_ms + LOOK_AGAIN_MS
        yield Await(subject.name, "NoAddressLeft", message, until, f"networks.{wanted.interface}")

    for address, holder in wanted.taken:
        message = (
            f"{address} was given to container {holder} before: write another, or write that one's down first"
        )
        until = subject.now_ms + LOOK_AGAIN_MS
        yield Await(subject.name, "AddressTaken", message, until, f"networks.{wanted.interface}")


def _add(subject: Subject, wanted: Attachment, live: set[str]) -> Iterator[Step]:
    for address in wanted.addresses:
        if address not in live:
            request = (subject.name, NewAddress(wanted.interface, address))
            key = f"networks.{wanted.interface}.addresses"
            yield AddAddress(subject.name, key, "missing" if subject.pid else "absent", address, (request,))


def _take(subject: Subject, wanted: Attachment, live: list[AddressSeen]) -> Iterator[Step]:
    for each in live:
        if each.ours and each.address not in wanted.addresses:
            request = (subject.name, DeleteAddress(each.index, each.address))
            key = f"networks.{wanted.interface}.addresses"
            yield RemoveAddress(subject.name, key, each.address, "none", (request,))
