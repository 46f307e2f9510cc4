"""bandwidth: how much a container sends and receives on each of its interfaces.

A limit of its own is a bucket where the traffic leaves: at the container's link for what it sends, at the host's
end for what it receives. Where a budget is shared, the host's end leads everything through a link of the network's
(aspect `funnels`). Sources: tc-tbf(8), tc-mirred(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Attachment
from controller.model.facts import Facts
from controller.model.links import LinkSeen
from controller.model.network import DIRECTIONS
from controller.model.queueing import Direction, QueueingSeen, Shaper, said
from controller.steps._base import Effect, Step
from controller.steps.queueing import PutQueueing, PutRedirect, TakeQueueing, TakeRedirect

HOOK: Mapping[str, Direction] = {"egress": "ingress", "ingress": "egress"}
"""What a container sends comes in at the host's end, and the other way round."""

NOTHING = QueueingSeen()


@dataclass(frozen=True, slots=True)
class Ends:
    """One attachment's two ends; a link that is not there does nothing. `funnels`: direction → number of the link
    that is meant to share it out, 0 when there is none."""

    inside: QueueingSeen = NOTHING
    outside: QueueingSeen = NOTHING
    funnels: Mapping[str, int] = field(default_factory=dict)


class Bandwidth:
    name = "bandwidth"
    section = "networks"
    keys: Mapping[str, Effect] = {"networks.egress": Effect.LIVE, "networks.ingress": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> tuple[Attachment, ...] | None:
        """Pure. `section`: the attachments, resolved by `controller.reconcile.topology`."""
        del facts
        return tuple(section) if section else None

    def birth(self, desired: tuple[Attachment, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(
        self, subject: Subject, host: Host, desired: tuple[Attachment, ...] | None
    ) -> Mapping[str, Ends]:
        """Read-only. By network."""
        if not desired:
            return {}
        links = {each.alias: each for each in host.links.links(subject.name) or ()}
        return {
            each.network: Ends(
                inside=_look(host, subject.name, links.get(each.mark)),
                outside=_look(host, "", host.links.link("", each.link)) if each.link else NOTHING,
                funnels={direction: _index(host, link) for direction, link in each.funnels.items()},
            )
            for each in desired
        }

    def diff(
        self, subject: Subject, desired: tuple[Attachment, ...], observed: Mapping[str, Ends]
    ) -> list[Step]:
        """Pure."""
        steps: list[Step] = []
        for wanted in desired:
            seen = observed.get(wanted.network, Ends())
            for direction in DIRECTIONS:
                steps += _own(subject, wanted, direction, seen)
                steps += _shared(subject, wanted, direction, seen) if wanted.link else ()
        return steps

    def remove(self, subject: Subject, observed: Mapping[str, Ends]) -> list[Step]:
        """Pure. It goes with the interfaces."""
        del subject, observed
        return []


def _look(host: Host, where: str, link: LinkSeen | None) -> QueueingSeen:
    return (host.queueing.look(where, link.index) if link else None) or NOTHING


def _index(host: Host, link: str) -> int:
    found = host.links.link("", link)
    return found.index if found else 0


def _own(subject: Subject, wanted: Attachment, direction: str, seen: Ends) -> Iterator[Step]:
    """What stands at the root and is nobody's wish goes only if it is one of masu's."""
    sends = direction == "egress"
    live = (seen.inside if sends else seen.outside).root
    shaper = wanted.shapers.get(direction)
    where, link = (subject.name, wanted.interface) if sends else ("", wanted.link)
    key = f"networks.{wanted.interface}.{direction}"
    if shaper and live != shaper:
        before = said(live, shaper) if live or subject.pid else "absent"
        yield PutQueueing(subject.name, key, before, shaper.words, where, link, shaper)
    elif shaper is None and isinstance(live, Shaper):
        yield TakeQueueing(subject.name, key, live.words, "none", where, link, live)


def _shared(subject: Subject, wanted: Attachment, direction: str, seen: Ends) -> Iterator[Step]:
    hook = HOOK[direction]
    key = f"networks.{wanted.interface}.{direction}.funnel"
    live = next((each.target for each in seen.outside.redirects if each.direction == hook), 0)
    funnel = wanted.funnels.get(direction)
    before = f"link {live}" if live else "absent" if not subject.pid else "none"
    if funnel and (not live or live != seen.funnels.get(direction)):
        yield PutRedirect(subject.name, key, before, funnel, "", wanted.link, hook)
    elif funnel is None and live:
        yield TakeRedirect(subject.name, key, before, "none", "", wanted.link, hook)
