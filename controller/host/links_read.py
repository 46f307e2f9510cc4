"""From rtnetlink's answers to values: links, addresses and routes. Pure.

Written out by hand because every look does it: pyroute2's decoder takes 0.2 ms a message and 0.1 s to import
(docs/adr/0006). Equal answers are decoded once. Sources: linux/if_link.h, if_addr.h, rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from controller.host.netlink import attribute, attributes, messages, text
from controller.model.links import MARK, AddressSeen, LinkSeen, RouteSeen

RTM_GETLINK: Final = 18
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26

_RTM_NEWLINK: Final = 16
_RTM_NEWADDR: Final = 20
_RTM_NEWROUTE: Final = 24

_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_EXT_MASK: Final = struct.Struct("=HHI")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_EXT_MASK, _IFLA_INFO_KIND = 18, 20, 29, 1
_IFLA_INFO_SLAVE_DATA, _IFLA_BRPORT_MODE = 5, 4
_RTEXT_FILTER_SKIP_STATS: Final = 8
_IFF_UP: Final = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_PROTO = 1, 2, 11
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN, _RTN_UNICAST, _RT_SCOPE_LINK = 254, 1, 253
_RTPROT_RA: Final = 9
_LINK_LOCAL: Final = b"\xfe\x80"
_V6_BYTES: Final = 16

LINKS_QUESTION: Final = _LINK.pack(0, 0, 0, 0, 0) + _EXT_MASK.pack(
    8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS
)


def link_question(name: str) -> bytes:
    """For one link, by name: its index is 0 in the question."""
    text = name.encode() + b"\0"
    padded = text + bytes(-len(text) % 4)
    return LINKS_QUESTION + struct.pack("=HH", 4 + len(text), _IFLA_IFNAME) + padded


ADDRESSES_QUESTION: Final = _ADDRESS.pack(0, 0, 0, 0, 0)
ROUTES_QUESTION: Final = _ROUTE.pack(0, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)


def routes_question(link: int) -> bytes:
    """For those over one link alone: a host may have a million others (Linux 4.20; before, it tells all)."""
    return ROUTES_QUESTION + struct.pack("=HHI", 8, _RTA_OIF, link)


def links(data: bytes) -> tuple[LinkSeen, ...]:
    found = []
    for kind, start, end in messages(data):
        if kind == _RTM_NEWLINK:
            _, _, index, flags, _ = _LINK.unpack_from(data, start)
            has = dict(attributes(data, start + _LINK.size, end))
            info = has.get(_IFLA_LINKINFO, b"")
            found.append(
                LinkSeen(
                    index=index,
                    name=text(has.get(_IFLA_IFNAME, b"")),
                    kind=text(attribute(info, _IFLA_INFO_KIND)),
                    alias=text(has.get(_IFLA_IFALIAS, b"")),
                    mac=has.get(_IFLA_ADDRESS, b"").hex(":"),
                    mtu=_number(has, _IFLA_MTU),
                    up=bool(flags & _IFF_UP),
                    master=_number(has, _IFLA_MASTER),
                    peer=_number(has, _IFLA_LINK),
                    hairpin=_hairpin(info),
                )
            )
    return tuple(found)


def addresses(data: bytes) -> tuple[AddressSeen, ...]:
    found = []
    for kind, start, end in messages(data):
        if kind == _RTM_NEWADDR:
            family, prefix, _, _, index = _ADDRESS.unpack_from(data, start)
            has = dict(attributes(data, start + _ADDRESS.size, end))
            raw = has.get(_IFA_LOCAL) or has.get(_IFA_ADDRESS, b"")
            if raw and not (len(raw) == _V6_BYTES and raw.startswith(_LINK_LOCAL)):
                ours = has.get(_IFA_PROTO, b"\0")[0] == MARK
                found.append(AddressSeen(index, f"{_address(family, raw)}/{prefix}", ours))
    return tuple(found)


def routes(data: bytes) -> tuple[RouteSeen, ...]:
    """Those of the main table that lead to a place."""
    found = []
    for kind, start, end in messages(data):
        if kind != _RTM_NEWROUTE:
            continue
        family, length, _, _, table, protocol, _, sort, _ = _ROUTE.unpack_from(data, start)
        has = dict(attributes(data, start + _ROUTE.size, end))
        if (
            _number(has, _RTA_TABLE) not in {0, _RT_TABLE_MAIN}
            or table != _RT_TABLE_MAIN
            or sort != _RTN_UNICAST
        ):
            continue
        raw, via = has.get(_RTA_DST), has.get(_RTA_GATEWAY)
        found.append(
            RouteSeen(
                index=_number(has, _RTA_OIF),
                family=family,
                destination=f"{_address(family, raw)}/{length}" if raw else "default",
                via=_address(family, via) if via else "",
                metric=_number(has, _RTA_PRIORITY),
                ours=protocol == MARK,
                advertised=protocol == _RTPROT_RA,
            )
        )
    return tuple(found)


def _hairpin(info: bytes) -> bool:
    return attribute(attribute(info, _IFLA_INFO_SLAVE_DATA), _IFLA_BRPORT_MODE) not in {b"", b"\0"}


def _number(has: dict[int, bytes], kind: int) -> int:
    payload = has.get(kind, b"")
    return int(struct.unpack("=I", payload)[0]) if len(payload) == 4 else 0


def _address(family: int, raw: bytes) -> str:
    return socket.inet_ntop(family, raw)
