"""The kernel's own route to the subnet of each address on a link, where somebody has taken it away; ip-route(8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_interface

from controller.model.links import LinkSeen, NewRoute, RouteSeen


def missing(link: LinkSeen, addresses: Iterable[str], routes: Iterable[RouteSeen]) -> Iterator[NewRoute]:
    """Pure. What makes them anew. `addresses`: on the link now; `routes`: over it. A link that is down has none."""
    there = {each.destination for each in routes if not each.via}
    for each in addresses if link.up else ():
        interface = ip_interface(each)
        if interface.network.num_addresses > 1 and str(interface.network) not in there:
            there.add(str(interface.network))
            yield NewRoute(link.index, str(interface.network), source=str(interface.ip))
