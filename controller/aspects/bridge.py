"""bridge: a network's switch on the host, and what the host has to do for it. Sources: bridge(8), ip-link(8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Bridge as Wanted
from controller.model.facts import Facts
from controller.model.links import DeleteLink, LinkSeen, NewLink, SetLink
from controller.model.marks import network_mark
from controller.model.resource import name_of
from controller.steps._base import Effect, Step
from controller.steps.network import MakeBridge, RemoveBridge, SetBridge
from controller.steps.runtime import Await

LOOK_AGAIN_MS = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """`named`: the link that has the bridge's name; `marked`: every link with the network's mark."""

    named: LinkSeen | None
    marked: tuple[LinkSeen, ...]


class Bridge:
    name = "bridge"
    section = "bridge"
    keys: Mapping[str, Effect] = {"bridge": Effect.LIVE, "bridge.mtu": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Wanted | None:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        wanted: Wanted | None = section
        return wanted

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only."""
        named = host.links.link("", desired.link) if desired else None
        if named and desired and named.alias == desired.mark:
            return Seen(named, (named,))
        mark = network_mark(host.instance, name_of(subject.name))
        links = host.links.links("") or ()
        return Seen(named, tuple(each for each in links if each.alias == mark and each.kind == "bridge"))

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure."""
        live = observed.named or next(iter(observed.marked), None)
        if live is None:
            new = NewLink(
                "bridge", desired.link, alias=desired.mark, mac=desired.mac, mtu=desired.mtu, up=False
            )
            return [MakeBridge(subject.name, "bridge", "absent", desired.link, (("", new),))]
        if live.kind != "bridge" or (live.alias not in {"", desired.mark} and live.mac != desired.mac):
            message = f"the link {desired.link} is somebody else's ({live.kind or 'device'} {live.alias!r})"
            return [Await(subject.name, "NameTaken", message, subject.now_ms + LOOK_AGAIN_MS, first=True)]
        return [
            SetBridge(subject.name, f"bridge.{name}", now, then, tuple(("", each) for each in changes))
            for name, now, then, changes in _differences(desired, live)
        ]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure."""
        return [
            RemoveBridge(subject.name, "bridge", each.name, "none", (("", DeleteLink(each.index)),))
            for each in observed.marked
        ]


def _differences(wanted: Wanted, live: LinkSeen) -> Iterator[tuple[str, str, str, tuple[SetLink, ...]]]:
    index = live.index
    if live.name != wanted.link:
        changes = (SetLink(index, up=False), SetLink(index, name=wanted.link, up=True))
        yield "link", live.name, wanted.link, changes
    if live.alias != wanted.mark:
        yield "mark", live.alias or "none", wanted.mark, (SetLink(index, alias=wanted.mark),)
    if live.mac != wanted.mac:
        yield "mac", live.mac, wanted.mac, (SetLink(index, mac=wanted.mac),)
    if live.mtu != wanted.mtu:
        yield "mtu", str(live.mtu), str(wanted.mtu), (SetLink(index, mtu=wanted.mtu),)
    if not live.up:
        yield "state", "down", "up", (SetLink(index, up=True),)
