"""One look at the host: what several aspects ask for is asked of the kernel once. Not for steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from controller.host.ports import Host, Links
from controller.model.links import AddressSeen, LinkChange, LinkSeen, RouteSeen

T = TypeVar("T")


def at(host: Host) -> Host:
    """Pure. The same host, for as long as one look takes."""
    return replace(host, links=_Links(host.links))


class _Links:
    """Read-only `Links` that remembers what it was told."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._known: dict[tuple[Any, ...], Any] = {}

    def links(self, where: str) -> tuple[LinkSeen, ...] | None:
        return self._once(("links", where), lambda: self._links.links(where))

    def link(self, where: str, name: str) -> LinkSeen | None:
        return self._once(("link", where, name), lambda: self._links.link(where, name))

    def addresses(self, where: str) -> tuple[AddressSeen, ...]:
        return self._once(("addresses", where), lambda: self._links.addresses(where))

    def routes(self, where: str) -> tuple[RouteSeen, ...]:
        return self._once(("routes", where), lambda: self._links.routes(where))

    def routes_over(self, where: str, link: int) -> tuple[RouteSeen, ...]:
        return self._once(("routes", where, link), lambda: self._links.routes_over(where, link))

    def change(self, where: str, changes: Sequence[LinkChange]) -> None:
        raise TypeError("nothing is changed while looking")

    def _once(self, key: tuple[Any, ...], ask: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = ask()
        found: T = self._known[key]
        return found
