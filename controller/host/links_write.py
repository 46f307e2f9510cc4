"""From what is wanted of links, addresses and routes to rtnetlink's requests, by pyroute2's message classes.

Importing the package as a whole costs 0.2 s and 25 MiB for an asyncio stack, a database and more; only the
message classes are loaded, and only when something has to be changed (docs/adr/0006).
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Final, NamedTuple

from controller.host.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from controller.model.links import (
    MARK,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    LinkChange,
    NewAddress,
    NewLink,
    NewRoute,
    SetLink,
)

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 16, 17, 20, 21, 24, 25
_IFF_UP: Final = 1
_IFA_F_NODAD: Final = 0x02
_RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE, _RTN_UNICAST = 254, 0, 253, 255, 1
_RTPROT_KERNEL, _PREFIX_METRIC_V6 = 2, 256
_MACVLAN_MODE: Final = "bridge"


class Request(NamedTuple):
    """One rtnetlink message: its type, flags beyond those of every request, and body."""

    kind: int
    flags: int
    body: bytes


class Places(NamedTuple):
    """What the names in a change stand for: link → its number, container → its open network namespace."""

    links: Mapping[str, int]
    namespaces: Mapping[str, int]

    def number(self, link: int | str) -> int:
        return link if isinstance(link, int) else self.links[link]


def requests(change: LinkChange, at: Places) -> tuple[Request, ...]:
    """Raises KeyError with the name of a link or container that is not in `at`."""
    match change:
        case NewLink():
            made = Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _body(_new_link(change, at)))
            finished = Request(_RTM_NEWLINK, 0, _body(_finished(change, at)))
            return (made, finished) if change.peer or not change.where else (made,)
        case SetLink():
            found = _RTM_NEWLINK, 0, _set_link(change, at)
        case DeleteLink():
            found = _RTM_DELLINK, 0, _link(at.number(change.link), [])
        case NewAddress():
            found = _RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, _address(change, at, mark=True)
        case DeleteAddress():
            found = _RTM_DELADDR, 0, _address(change, at, mark=False)
        case NewRoute():
            flags = NLM_F_CREATE | (NLM_F_APPEND if change.source else NLM_F_REPLACE)
            found = _RTM_NEWROUTE, flags, _route(change, at, new=True)
        case DeleteRoute():
            found = _RTM_DELROUTE, 0, _route(change, at, new=False)
    kind, flags, message = found
    return (Request(kind, flags, _body(message)),)


def _new_link(wanted: NewLink, at: Places) -> Any:
    kind: list[tuple[str, Any]] = [("IFLA_INFO_KIND", wanted.kind)]
    attributes = _naming(wanted)
    elsewhere = [("IFLA_NET_NS_FD", at.namespaces[wanted.where])] if wanted.where else []
    if wanted.peer:
        peer = {"attrs": [*_naming(wanted.peer), *elsewhere]}
        kind.append(("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}))
    else:
        attributes.extend(elsewhere)
    if wanted.parent:
        attributes.append(("IFLA_LINK", at.links[wanted.parent]))
        kind.append(("IFLA_INFO_DATA", {"attrs": [("IFLA_MACVLAN_MODE", _MACVLAN_MODE)]}))
    return _link(0, [*attributes, ("IFLA_LINKINFO", {"attrs": kind})])


def _naming(wanted: NewLink) -> list[tuple[str, Any]]:
    given = {"IFLA_IFNAME": wanted.name, "IFLA_ADDRESS": wanted.mac, "IFLA_MTU": wanted.mtu}
    return [(key, value) for key, value in given.items() if value]


def _finished(wanted: NewLink, at: Places) -> Any:
    """By name: its number is not known yet."""
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", wanted.name), ("IFLA_IFALIAS", wanted.alias)]
    if wanted.master:
        attributes.append(("IFLA_MASTER", at.links[wanted.master]))
    found = _link(0, attributes)
    if wanted.up:
        found["flags"] = found["change"] = _IFF_UP
    return found


def _set_link(wanted: SetLink, at: Places) -> Any:
    given: dict[str, Any] = {
        "IFLA_IFNAME": wanted.name,
        "IFLA_ADDRESS": wanted.mac,
        "IFLA_MTU": wanted.mtu,
        "IFLA_IFALIAS": wanted.alias,
    }
    if wanted.master is not None:
        given["IFLA_MASTER"] = at.links[wanted.master] if wanted.master else 0
    if wanted.where is not None:
        given["IFLA_NET_NS_FD"] = at.namespaces[wanted.where]
    if wanted.hairpin is not None:
        port = {"attrs": [("IFLA_BRPORT_MODE", int(wanted.hairpin))]}
        attributes = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]
        given["IFLA_LINKINFO"] = {"attrs": attributes}
    found = _link(at.number(wanted.link), [(key, value) for key, value in given.items() if value is not None])
    if wanted.up is not None:
        found["flags"], found["change"] = _IFF_UP if wanted.up else 0, _IFF_UP
    return found


def _link(index: int, attributes: list[tuple[str, Any]]) -> Any:
    found = _classes()["ifinfmsg"]()
    found["index"], found["attrs"] = index, attributes
    return found


def _address(wanted: NewAddress | DeleteAddress, at: Places, *, mark: bool) -> Any:
    interface = ipaddress.ip_interface(wanted.address)
    found = _classes()["ifaddrmsg"]()
    found["family"] = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    found["prefixlen"] = interface.network.prefixlen
    found["index"] = at.number(wanted.link)
    attributes: list[tuple[str, Any]] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    if mark:
        attributes += [("IFA_FLAGS", _IFA_F_NODAD), ("IFA_PROTO", MARK)]
        if interface.version == 4 and interface.network.prefixlen < 31:
            attributes.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    found["attrs"] = attributes
    return found


def _route(wanted: NewRoute | DeleteRoute, at: Places, *, new: bool) -> Any:
    network = None if wanted.destination == "default" else ipaddress.ip_network(wanted.destination)
    version = network.version if network else ipaddress.ip_address(wanted.via).version
    found = _classes()["rtmsg"]()
    found["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    found["dst_len"] = network.prefixlen if network else 0
    found["table"], found["proto"], found["type"] = _RT_TABLE_MAIN, MARK, _RTN_UNICAST
    found["scope"] = _RT_SCOPE_UNIVERSE if wanted.via or version == 6 else _RT_SCOPE_LINK
    if not new:
        found["scope"] = _RT_SCOPE_NOWHERE
    given = {
        "RTA_DST": str(network.network_address) if network else None,
        "RTA_OIF": at.number(wanted.link),
        "RTA_GATEWAY": wanted.via or None,
        "RTA_PRIORITY": wanted.metric or None,
    }
    if isinstance(wanted, NewRoute) and wanted.source:  # net/ipv4/fib_frontend.c, net/ipv6/addrconf.c
        found["proto"] = _RTPROT_KERNEL
        given |= {"RTA_PREFSRC": wanted.source} if version == 4 else {"RTA_PRIORITY": _PREFIX_METRIC_V6}
    found["attrs"] = [(key, value) for key, value in given.items() if value is not None]
    return found


def _body(message: Any) -> bytes:
    """Without the message's own header: the socket writes that."""
    message.encode()
    return bytes(message.data[16 : message["header"]["length"]])


@cache
def _classes() -> Mapping[str, Any]:
    if "pyroute2" not in sys.modules:
        sys.modules["pyroute2"] = _bare("pyroute2")
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: PLC0415
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: PLC0415
    from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: PLC0415

    return {"ifinfmsg": ifinfmsg, "ifaddrmsg": ifaddrmsg, "rtmsg": rtmsg}


def _bare(package: str) -> ModuleType:
    """A package whose modules can be imported one by one, without what its own __init__ imports."""
    found = PathFinder.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed", name=package)
    module = ModuleType(package)
    module.__path__ = list(found.submodule_search_locations)
    return module
