"""interfaces: the container's links and what they hang on. Addresses and routes on them are aspects of their own.

A veth is made from the host's side; its end inside is known by its mark, whatever it is called. A device of the
host moves in and is given back under the name that its mark remembers: the kernel would destroy a virtual one with
the namespace. Sources: veth(4), ip-link(8), bridge(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Attachment
from controller.model.facts import Facts
from controller.model.links import DeleteLink, Device, LinkSeen, NewLink, SetLink
from controller.model.marks import MARK, device_of_mark
from controller.steps._base import Effect, Step
from controller.steps.network import (
    MakeInterface,
    MoveInterface,
    RemoveInterface,
    ReturnInterface,
    SetInterface,
)
from controller.steps.runtime import Await

LOOK_AGAIN_MS = 500
DEVICE = "hostDevice"
MACVLAN = "macvlan"
PREFIX = f"{MARK}/"


@dataclass(frozen=True, slots=True)
class Seen:
    """`inside`: every link in the container's namespace; `outside`: attachment's network → its end on the host;
    `parents`: name of a link of the host that something hangs on → that link; `lent`: marks of those it gave."""

    inside: tuple[LinkSeen, ...]
    outside: Mapping[str, LinkSeen | None]
    parents: Mapping[str, LinkSeen | None]
    lent: Mapping[str, Device] = field(default_factory=dict)


class Interfaces:
    name = "interfaces"
    section = "networks"
    keys: Mapping[str, Effect] = {
        "networks": Effect.LIVE,
        "networks.interface": Effect.LIVE,
        "networks.mac": Effect.LIVE,
        "networks.mtu": Effect.LIVE,
    }

    def parse(self, section: Any, facts: Facts) -> tuple[Attachment, ...]:
        """Pure. `section`: the attachments, resolved by `controller.reconcile.topology`."""
        del facts
        return tuple(section or ())

    def birth(self, desired: tuple[Attachment, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: tuple[Attachment, ...] | None) -> Seen:
        """Read-only."""
        inside = host.links.links(subject.name) or ()
        wanted = desired or ()
        return Seen(
            inside=inside,
            outside={each.network: _outside(host, each) for each in wanted if each.link},
            parents={each.parent: host.links.link("", each.parent) for each in wanted},
            lent=host.devices.lent(subject.name)
            if any(device_of_mark(each.alias) for each in inside)
            else {},
        )

    def diff(self, subject: Subject, desired: tuple[Attachment, ...], observed: Seen) -> list[Step]:
        """Pure. Names are made free before they are given anew."""
        wanted = {one.mark: one.interface for one in desired}
        steps: list[Step] = []
        inside = []
        for link in observed.inside:
            if link.alias not in wanted and _is_ours(subject, link):
                steps.extend(_remove(subject, link, "not wanted any more", observed))
            elif wanted.get(link.alias, link.name) != link.name and link.name in wanted.values():
                aside = f"aside{link.index}"
                steps.append(_rename(subject, link, aside))
                inside.append(replace(link, name=aside))
            else:
                inside.append(link)
        if desired:
            left = replace(observed, inside=tuple(inside))
            steps.extend(each for one in desired for each in _converge(subject, one, left))
        return steps

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Not before the last process has ended: until then it may have something to say."""
        if subject.pid:
            return []
        ours = (each for each in observed.inside if _is_ours(subject, each))
        return [step for each in ours for step in _remove(subject, each, "removed", observed)]


def _outside(host: Host, wanted: Attachment) -> LinkSeen | None:
    """By name, or by its mark where somebody has renamed it."""
    found = host.links.link("", wanted.link)
    if found is None:
        found = next((each for each in host.links.links("") or () if each.alias == wanted.mark), None)
    return found


def _is_ours(subject: Subject, link: LinkSeen) -> bool:
    return f"/container/{subject.name}/" in link.alias


def _inside(wanted: Attachment, observed: Seen) -> LinkSeen | None:
    """One without an alias that has the right name is half made, or half moved."""
    marked = next((each for each in observed.inside if each.alias == wanted.mark), None)
    names = {wanted.interface, wanted.parent if wanted.type == DEVICE else ""}
    half = (each for each in observed.inside if each.name in names and not each.alias)
    return marked or next(half, None)


def _converge(subject: Subject, wanted: Attachment, observed: Seen) -> Iterator[Step]:
    inside, outside = _inside(wanted, observed), observed.outside.get(wanted.network)
    parent = observed.parents.get(wanted.parent)
    if wanted.type == DEVICE:
        yield from _device(subject, wanted, inside, parent)
    elif wanted.type == MACVLAN:
        yield from _macvlan(subject, wanted, inside, parent)
    elif parent is None and subject.pid:  # it is made before whoever is born on it
        message = f"network {wanted.network} has no bridge {wanted.parent} yet"
        yield _wait(subject, wanted, "WaitsForNetwork", message)
    else:
        yield from _veth(subject, wanted, inside, outside, parent)


def _device(
    subject: Subject, wanted: Attachment, inside: LinkSeen | None, outside: LinkSeen | None
) -> Iterator[Step]:
    if inside:
        yield from _set_inside(subject, wanted, inside)
    elif outside is None:
        yield _wait(
            subject, wanted, "NoDevice", f"this host has no link {wanted.parent} for network {wanted.network}"
        )
    elif outside.name != wanted.parent:
        message = f"{wanted.parent} is another name of link {outside.name}: write that one"
        yield _wait(subject, wanted, "NoDevice", message)
    elif outside.alias.startswith(PREFIX) and outside.alias != wanted.mark:
        yield _wait(subject, wanted, "DeviceTaken", f"link {wanted.parent} is in use as {outside.alias}")
    else:
        # One message, so that it is never inside without the mark by which it is found again.
        move = SetLink(outside.index, name=wanted.interface, alias=wanted.mark, where=subject.name)
        finish = SetLink(wanted.interface, up=True, **_given(wanted))
        requests = (("", move), (subject.name, finish))
        key = f"networks.{wanted.interface}"
        before, live = Device(outside.mac, outside.mtu), f"host's {outside.name}"
        yield MoveInterface(subject.name, key, live, wanted.interface, requests, wanted.mark, before)


def _macvlan(
    subject: Subject, wanted: Attachment, inside: LinkSeen | None, parent: LinkSeen | None
) -> Iterator[Step]:
    if parent is None:
        message = f"this host has no link {wanted.parent}, the parent of network {wanted.network}"
        yield _wait(subject, wanted, "NoParent", message)
    elif wanted.mtu > parent.mtu:
        message = (
            f"packets of {wanted.mtu} bytes do not fit through {wanted.parent}, which takes {parent.mtu}"
        )
        yield _wait(subject, wanted, "MtuTooLarge", message)
    elif inside and (inside.kind != MACVLAN or inside.peer != parent.index):
        yield _delete(subject, inside, "hangs elsewhere")
        yield _wait(subject, wanted, "Misplaced", f"{wanted.interface} is made anew", 0)
    elif inside:  # the kernel made it with its parent's, and keeps what somebody has set since
        yield from _set_inside(subject, replace(wanted, mtu=wanted.mtu or parent.mtu), inside)
    else:
        new = NewLink(MACVLAN, wanted.interface, mac=wanted.mac, mtu=wanted.mtu, parent=wanted.parent)
        yield _make(subject, wanted, new)


def _given(wanted: Attachment) -> dict[str, Any]:
    return {key: value for key, value in (("mac", wanted.mac), ("mtu", wanted.mtu)) if value}


def _wait(
    subject: Subject, wanted: Attachment, reason: str, message: str, wait_ms: int = LOOK_AGAIN_MS
) -> Await:
    key = f"networks.{wanted.interface}"
    return Await(subject.name, reason, message, subject.now_ms + wait_ms, key)


def _veth(
    subject: Subject,
    wanted: Attachment,
    inside: LinkSeen | None,
    outside: LinkSeen | None,
    parent: LinkSeen | None,
) -> Iterator[Step]:
    if outside is None and inside is None:
        peer = NewLink("veth", wanted.interface, mac=wanted.mac, mtu=wanted.mtu)
        yield _make(
            subject,
            wanted,
            NewLink("veth", wanted.link, alias=wanted.mark, mtu=wanted.mtu, master=wanted.parent, peer=peer),
        )
    elif outside is None or inside is None or (outside.peer, inside.peer) != (inside.index, outside.index):
        # The two are no pair: whatever they are, they go, and the next look makes a pair.
        if outside and outside.alias in {"", wanted.mark}:
            yield _remove_outside(subject, wanted, outside)
        if inside:
            yield _delete(subject, inside, "without its other end")
        yield _wait(subject, wanted, "Unpaired", f"{wanted.interface} is made anew", 0)
    else:
        yield from _set_inside(subject, wanted, inside)
        yield from _set_outside(subject, wanted, outside, parent.index if parent else 0)


def _make(subject: Subject, wanted: Attachment, link: NewLink) -> Step:
    made = replace(link, where=subject.name)
    finish = SetLink(wanted.interface, alias=wanted.mark, up=True)
    where = f"{wanted.type} {wanted.parent}"
    hairpin = (("", SetLink(wanted.link, hairpin=True)),) if wanted.publishes else ()
    requests = (("", made), (subject.name, finish), *hairpin)
    live = "missing" if subject.pid else "absent"
    return MakeInterface(subject.name, f"networks.{wanted.interface}", live, where, requests)


def _set_inside(subject: Subject, wanted: Attachment, live: LinkSeen) -> Iterator[Step]:
    if live.name != wanted.interface:
        yield _rename(subject, live, wanted.interface)
    key = f"networks.{wanted.interface}"
    for name, now, then, change in _differences(wanted, live):
        yield SetInterface(subject.name, f"{key}.{name}", now, then, ((subject.name, change),))


def _rename(subject: Subject, live: LinkSeen, name: str) -> Step:
    """A link that is up cannot be renamed (before Linux 6.3), and its addresses go when it is set down: so they
    are put back with the next look."""
    down, up = SetLink(live.index, up=False), SetLink(live.index, name=name, up=True)
    requests = ((subject.name, down), (subject.name, up))
    return SetInterface(subject.name, f"networks.{name}", live.name, name, requests)


def _differences(wanted: Attachment, live: LinkSeen) -> Iterator[tuple[str, str, str, SetLink]]:
    index = live.index
    if wanted.mac and live.mac != wanted.mac:
        yield "mac", live.mac, wanted.mac, SetLink(index, mac=wanted.mac)
    if wanted.mtu and live.mtu != wanted.mtu:
        yield "mtu", str(live.mtu), str(wanted.mtu), SetLink(index, mtu=wanted.mtu)
    if live.alias != wanted.mark:
        yield "mark", live.alias or "none", wanted.mark, SetLink(index, alias=wanted.mark)
    if not live.up:
        yield "state", "down", "up", SetLink(index, up=True)


def _set_outside(subject: Subject, wanted: Attachment, live: LinkSeen, bridge: int) -> Iterator[Step]:
    key = f"networks.{wanted.interface}"
    changes = []
    if live.name != wanted.link:
        changes += [SetLink(live.index, up=False), SetLink(live.index, name=wanted.link, up=True)]
        yield SetInterface(
            subject.name, f"{key}.link", live.name, wanted.link, tuple(("", each) for each in changes)
        )
    if live.alias != wanted.mark:
        change = SetLink(live.index, alias=wanted.mark)
        yield SetInterface(subject.name, f"{key}.mark", live.alias or "none", wanted.mark, (("", change),))
    if live.master != bridge:
        change = SetLink(live.index, master=wanted.parent)
        now = f"link {live.master}" if live.master else "none"
        yield SetInterface(subject.name, f"{key}.bridge", now, wanted.parent, (("", change),))
    if live.hairpin != wanted.publishes and live.master == bridge:
        change = SetLink(live.index, hairpin=wanted.publishes)
        now, then = str(live.hairpin), str(wanted.publishes)
        yield SetInterface(subject.name, f"{key}.hairpin", now, then, (("", change),))
    if live.mtu != wanted.mtu:
        change = SetLink(live.index, mtu=wanted.mtu)
        yield SetInterface(subject.name, f"{key}.link.mtu", str(live.mtu), str(wanted.mtu), (("", change),))
    if not live.up:
        yield SetInterface(
            subject.name, f"{key}.link.state", "down", "up", (("", SetLink(live.index, up=True)),)
        )


def _remove(subject: Subject, link: LinkSeen, why: str, observed: Seen) -> Iterator[Step]:
    """Whoever is root inside may write any mark on a link of his own: the host takes back only what it gave."""
    name, before = device_of_mark(link.alias), observed.lent.get(link.alias)
    if not name:
        yield _delete(subject, link, why)
    elif before:
        mac = before.mac if link.mac != before.mac else None
        mtu = before.mtu if link.mtu != before.mtu else None
        requests = [(subject.name, SetLink(link.index, mac=mac, mtu=mtu))] if mac or mtu else []
        requests.append((subject.name, SetLink(link.index, name=name, alias="", where="")))
        key = f"networks.{link.name}"
        yield ReturnInterface(subject.name, key, link.name, f"host's {name}", tuple(requests), link.alias)


def _delete(subject: Subject, link: LinkSeen, why: str) -> Step:
    requests = ((subject.name, DeleteLink(link.index)),)
    return RemoveInterface(subject.name, f"networks.{link.name}", "there", why, requests)


def _remove_outside(subject: Subject, wanted: Attachment, link: LinkSeen) -> Step:
    requests = (("", DeleteLink(link.index)),)
    return RemoveInterface(
        subject.name, f"networks.{wanted.interface}", "there", "without its other end", requests
    )
