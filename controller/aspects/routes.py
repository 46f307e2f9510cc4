"""routes: of the container's interfaces, to everywhere and to where the spec says. Others' stay; ip-route(8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects import _connected
from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Attachment, Route
from controller.model.facts import Facts
from controller.model.links import AddressSeen, DeleteRoute, LinkSeen, NewRoute, RouteSeen
from controller.steps._base import Effect, Step
from controller.steps.network import AddRoute, RemoveRoute

METRIC_V6 = 1024
"""What the kernel takes for none (IP6_RT_PRIO_USER)."""


@dataclass(frozen=True, slots=True)
class Seen:
    links: tuple[LinkSeen, ...]
    addresses: tuple[AddressSeen, ...]
    routes: tuple[RouteSeen, ...]


class Routes:
    name = "routes"
    section = "networks"
    keys: Mapping[str, Effect] = {"networks.routes": Effect.LIVE}

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
            return Seen((), (), ())
        links, where = host.links, subject.name
        return Seen(links.links(where) or (), links.addresses(where), links.routes(where))

    def diff(self, subject: Subject, desired: tuple[Attachment, ...], observed: Seen) -> list[Step]:
        """Pure. What leads away goes first: the kernel keeps one route to a place, of one metric."""
        steps: list[Step] = []
        for wanted in desired:
            link = next((each for each in observed.links if each.alias == wanted.mark), None)
            live = [each for each in observed.routes if link and each.index == link.index]
            if link:
                there = {each.address for each in observed.addresses if each.index == link.index}
                own = (each for each in wanted.addresses if each in there)
                steps.extend(_add(subject, wanted, new) for new in _connected.missing(link, own, live))
            steps.extend(_steps(subject, wanted, live))
        return sorted(steps, key=lambda step: step.kind, reverse=True)

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. They go with their interfaces."""
        del subject, observed
        return []


def _steps(subject: Subject, wanted: Attachment, live: list[RouteSeen]) -> list[Step]:
    key, interface = f"networks.{wanted.interface}.routes", wanted.interface
    there = {_identity(each.destination, each.via, each.metric) for each in live}
    asked = {_identity(each.destination, each.via, each.metric): each for each in wanted.routes}
    steps: list[Step] = []
    for each in live:
        if each.ours and _identity(each.destination, each.via, each.metric) not in asked:
            gone = DeleteRoute(each.index, each.destination, each.via, each.metric)
            route = Route(each.destination, each.via, each.metric)
            steps.append(RemoveRoute(subject.name, key, _text(route), "none", ((subject.name, gone),)))
    for identity, route in asked.items():
        if identity not in there:
            new = NewRoute(interface, route.destination, route.via, route.metric)
            steps.append(_add(subject, wanted, new))
    return steps


def _add(subject: Subject, wanted: Attachment, new: NewRoute) -> Step:
    key, now = f"networks.{wanted.interface}.routes", "missing" if subject.pid else "absent"
    text = _text(Route(new.destination, new.via, new.metric))
    return AddRoute(subject.name, key, now, text, ((subject.name, new),))


def _identity(destination: str, via: str, metric: int) -> tuple[str, str, int]:
    is_v6 = ":" in destination + via
    return destination, via, metric or (METRIC_V6 if is_v6 else 0)


def _text(route: Route) -> str:
    via = f" via {route.via}" if route.via else ""
    return f"{route.destination}{via}{f' metric {route.metric}' if route.metric else ''}"
