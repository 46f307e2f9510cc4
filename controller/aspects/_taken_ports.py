"""Which of the ports that are to be published are somebody else's. Whoever had a port first keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.host.ports import Host
from controller.model.firewall import Publication, withheld


def taken(wanted: Iterable[Publication], host: Host) -> Mapping[Publication, str]:
    """Read-only. → why not, in words. Nobody is asked about what is published already."""
    wanted = tuple(wanted)
    published = host.firewall.published() if wanted else frozenset()
    fresh = [each for each in wanted if each not in published]
    if not fresh:
        return {}
    return withheld(fresh, host.listeners.all(), host.firewall.published_by_others())
