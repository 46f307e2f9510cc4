"""funnels: links of the host in which a network's bandwidth is shared out, one for each direction with a budget.

What containers send, or receive, is led through them by the containers' own aspect `bandwidth`. Sources: tc-htb(8),
tc-mirred(8); a link of kind ifb sends what is led into it back to where it was taken from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Funnel
from controller.model.facts import Facts
from controller.model.links import DeleteLink, LinkSeen, NewLink, SetLink
from controller.model.marks import funnel_mark, funnel_name, prefixes
from controller.model.network import DIRECTIONS
from controller.model.queueing import QueueingSeen, said
from controller.model.resource import name_of
from controller.steps._base import Effect, Step
from controller.steps.queueing import MakeFunnel, PutQueueing, RemoveFunnel, SetFunnel
from controller.steps.runtime import Await

KIND = "ifb"
LOOK_AGAIN_MS = 5_000
SOON_MS = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """By direction: the link of that name, whoever's it is, and what it does. `mark`: the one that is masu's.
    `used`: whether some link of a container still leads into it."""

    mark: str
    link: LinkSeen
    queueing: QueueingSeen
    used: bool

    @property
    def ours(self) -> bool:
        """One of that kind without an alias is half made."""
        return self.link.kind == KIND and self.link.alias in {"", self.mark}


class Funnels:
    name = "funnels"
    section = "funnels"
    keys: Mapping[str, Effect] = {"egress": Effect.LIVE, "ingress": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> tuple[Funnel, ...]:
        """Pure. `section`: resolved by `controller.reconcile.shares`."""
        del facts
        return tuple(section or ())

    def birth(self, desired: tuple[Funnel, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: tuple[Funnel, ...] | None) -> Mapping[str, Seen]:
        """Read-only."""
        found: dict[str, Seen] = {}
        network = name_of(subject.name)
        wanted = {each.direction for each in desired or ()}
        for direction in DIRECTIONS:
            link = host.links.link("", funnel_name(host.instance, network, direction))
            queueing = host.queueing.look("", link.index) if link else None
            if link and queueing:
                used = direction not in wanted and _is_used(host, link)
                mark = funnel_mark(host.instance, network, direction)
                found[direction] = Seen(mark, link, queueing, used)
        return found

    def diff(self, subject: Subject, desired: tuple[Funnel, ...], observed: Mapping[str, Seen]) -> list[Step]:
        """Pure."""
        steps = [step for each in desired for step in _converge(subject, each, observed.get(each.direction))]
        wanted = {each.direction for each in desired}
        for direction, seen in observed.items():
            if direction not in wanted and seen.ours:
                steps.append(_remove(subject, direction, seen))
        return steps

    def remove(self, subject: Subject, observed: Mapping[str, Seen]) -> list[Step]:
        """Pure."""
        return [_remove(subject, direction, seen) for direction, seen in observed.items() if seen.ours]


def _is_used(host: Host, funnel: LinkSeen) -> bool:
    ports = [each for each in host.links.links("") or () if each.name.startswith(prefixes(host.instance)[1])]
    looks = (host.queueing.look("", each.index) for each in ports)
    return any(each.target == funnel.index for seen in looks if seen for each in seen.redirects)


def _converge(subject: Subject, wanted: Funnel, seen: Seen | None) -> Iterator[Step]:
    key = wanted.direction
    if seen is None:
        new = NewLink(KIND, wanted.link, alias=wanted.mark)
        yield MakeFunnel(subject.name, f"{key}.funnel", "absent", wanted.link, (("", new),))
        seen = Seen(
            wanted.mark, LinkSeen(0, wanted.link, KIND, wanted.mark, "", 0, True), QueueingSeen(), False
        )
    elif not seen.ours:
        link = seen.link
        message = f"the link {link.name} is somebody else's ({link.kind or 'device'} {link.alias!r})"
        yield Await(subject.name, "NameTaken", message, subject.now_ms + LOOK_AGAIN_MS)
        return
    index = seen.link.index
    if seen.link.alias != wanted.mark:
        change = SetLink(index, alias=wanted.mark)
        yield SetFunnel(subject.name, f"{key}.mark", "none", wanted.mark, (("", change),))
    if not seen.link.up:
        yield SetFunnel(subject.name, f"{key}.state", "down", "up", (("", SetLink(index, up=True)),))
    live = seen.queueing.root
    if live != wanted.tree:
        before, after = said(live, wanted.tree), wanted.tree.words
        yield PutQueueing(subject.name, f"{key}.shares", before, after, "", wanted.link, wanted.tree)
    if seen.queueing.classifier != wanted.classifier:
        before = seen.queueing.classifier.digest if seen.queueing.classifier else "none"
        after = wanted.classifier.digest
        node = wanted.classifier
        yield PutQueueing(subject.name, f"{key}.classifier", before, after, "", wanted.link, node)


def _remove(subject: Subject, direction: str, seen: Seen) -> Step:
    if seen.used:
        message = f"containers still send through {seen.link.name}"
        return Await(subject.name, "StillUsed", message, subject.now_ms + SOON_MS)
    request = DeleteLink(seen.link.index)
    return RemoveFunnel(subject.name, f"{direction}.funnel", seen.link.name, "none", (("", request),))
