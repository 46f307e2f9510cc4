"""How bandwidth is shared out: who has a limit of its own, and who sends through a network's funnels. Pure.

Where nothing is shared, a bucket on the container's own link holds it back. Where a network or a group has a
budget, what everybody on it sends, or receives, goes through one link of the host (an ifb) with a tree of classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.model import marks
from controller.model.attachment import Attachment, Funnel, Share
from controller.model.network import DIRECTIONS, JUMBO_MTU, Network, group_of
from controller.model.quantity import parse_rate
from controller.model.queueing import End, Group, Member, Shaper, classes, classifier, shaper
from controller.model.resource import Resource

FIRST_GROUP, LAST_GROUP = 0x7000, 0x7FFF
"""Minor numbers of groups' classes; containers have those below (their leases' slots), the kernel those above."""


def is_shared(network: Network, container: Resource, groups: Mapping[str, Resource], direction: str) -> bool:
    """Pure. Whether its traffic on that network comes out of a budget that others have a part in."""
    return network.type == "bridge" and (
        direction in network.budget or bool(_budget_of(group_of(container, "network"), groups, direction))
    )


def shapers(
    network: Network, container: Resource, groups: Mapping[str, Resource], entry: Mapping[str, Any]
) -> dict[str, Shaper]:
    """Pure. By direction: the limits of that entry of `networks` that concern nobody else."""
    mtu = entry.get("mtu") or network.mtu or JUMBO_MTU
    return {
        direction: shaper(parse_rate(entry[direction]["max"]), mtu)
        for direction in DIRECTIONS
        if "max" in entry.get(direction, {}) and not is_shared(network, container, groups, direction)
    }


def funnels(
    instance: str,
    network: Network,
    groups: Mapping[str, Resource],
    containers: Mapping[str, Resource],
    attached: Mapping[str, tuple[Attachment, ...]],
) -> Iterator[Funnel]:
    """Pure. Those of a network, at most one for each direction."""
    for direction in DIRECTIONS:
        members = [
            (each, _group_name(containers[name], groups, direction))
            for name, attachments in sorted(attached.items())
            for each in attachments
            if each.network == network.name and direction in each.funnels and each.slot
        ]
        if members or direction in network.budget:
            yield _funnel(instance, network, direction, groups, members)


def group_minors(names: Iterable[str]) -> dict[str, int]:
    """Pure. A class number for each group: one that hardly ever depends on which other groups there are."""
    found: dict[str, int] = {}
    span = LAST_GROUP - FIRST_GROUP + 1
    for name in sorted(set(names)):
        minor = FIRST_GROUP + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % span
        while minor in found.values():
            minor = FIRST_GROUP + (minor - FIRST_GROUP + 1) % span
        found[name] = minor
    return found


def _funnel(
    instance: str,
    network: Network,
    direction: str,
    groups: Mapping[str, Resource],
    members: list[tuple[Attachment, str]],
) -> Funnel:
    minors = group_minors(group for _, group in members if group)
    tree = classes(
        network.budget.get(direction, 0),
        network.mtu,
        [Group(minor, _budget_of(name, groups, direction)) for name, minor in minors.items()],
        [_member(each, direction, minors.get(group, 0)) for each, group in members],
    )
    end: End = "source" if direction == "egress" else "destination"
    return Funnel(
        direction=direction,
        link=marks.funnel_name(instance, network.name, direction),
        mark=marks.funnel_mark(instance, network.name, direction),
        tree=tree,
        classifier=classifier({each.mac: each.slot for each, _ in members}, end),
    )


def _member(attachment: Attachment, direction: str, group: int) -> Member:
    share = attachment.shares.get(direction, Share())
    return Member(attachment.slot, share.least, share.most, share.priority, group)


def _group_name(container: Resource, groups: Mapping[str, Resource], direction: str) -> str:
    """Its group, where that has a budget in this direction."""
    name = group_of(container, "network")
    return name if _budget_of(name, groups, direction) else ""


def _budget_of(group: str, groups: Mapping[str, Resource], direction: str) -> int:
    """Bits per second; 0: none."""
    found = groups.get(group)
    written = (found.section("network") or {}).get(direction) if found else None
    return parse_rate(written["max"]) if written else 0
