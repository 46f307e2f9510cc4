"""The words of libnftables-json(5) that a ruleset is made of, and a table in the making. Pure.

Every command here is one that nft 1.0.6 takes; its JSON knows no map to an address with a port, and dies of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any, Final

from controller.model.firewall import Ports

Command = dict[str, Any]
Expression = dict[str, Any]
Prefix = IPv4Network | IPv6Network

LONGEST_COMMENT: Final = 128
VERSIONS: Final = (4, 6)
PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
"""Numbers, because a small system has no /etc/protocols for nft to look them up in."""

ACCEPT: Final[Expression] = {"accept": None}
DROP: Final[Expression] = {"drop": None}
RETURN: Final[Expression] = {"return": None}
MASQUERADE: Final[Expression] = {"masquerade": None}


class Table:
    """A table in the making: objects first, for what is in them refers to them."""

    def __init__(self, family: str, name: str) -> None:
        self.objects: list[Command] = [{"table": {"family": family, "name": name}}]
        self.contents: list[Command] = []
        self._where = {"family": family, "table": name}

    def chain(self, name: str, **base: Any) -> None:
        """`base`: type, hook and priority of one that the kernel calls; it accepts what falls through."""
        policy = {"policy": "accept"} if base else {}
        self.objects.append({"chain": {**self._where, "name": name, **base, **policy}})

    def rule(self, chain: str, comment: str, *expressions: Expression) -> None:
        said = comment.encode()[:LONGEST_COMMENT].decode("utf-8", "ignore")
        body = {**self._where, "chain": chain, "comment": said, "expr": list(expressions)}
        self.contents.append({"rule": body})

    def set(self, name: str, sort: str | list[str], elements: Collection[Any], *, ranges: bool) -> None:
        flags = {"flags": ["interval"]} if ranges else {}
        self.objects.append({"set": {**self._where, "name": name, "type": sort, **flags}})
        self._fill(name, list(elements))

    def map(self, name: str, sort: list[str], value: str, elements: Collection[Any]) -> None:
        self.objects.append({"map": {**self._where, "name": name, "type": sort, "map": value}})
        self._fill(name, list(elements))

    def counter(self, name: str) -> None:
        self.objects.append({"counter": {**self._where, "name": name}})

    def _fill(self, name: str, elements: list[Any]) -> None:
        if elements:
            self.contents.append({"element": {**self._where, "name": name, "elem": elements}})


def match(left: Expression, right: Any, operator: str = "==") -> Expression:
    return {"match": {"op": operator, "left": left, "right": right}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def concat(*parts: Any) -> Expression:
    return {"concat": list(parts)}


def goto(chain: str) -> Expression:
    return {"goto": {"target": chain}}


def tracked(key: str, values: Any) -> Expression:
    """Any of these bits of what connection tracking knows."""
    return {"match": {"op": "in", "left": {"ct": {"key": key}}, "right": values}}


def icmp(version: int, names: Iterable[str]) -> Expression:
    return match(payload("icmp" if version == 4 else "icmpv6", "type"), {"set": list(names)})


def address(version: int, field: str) -> Expression:
    """The packet's source or destination: "saddr" or "daddr"."""
    return payload(family(version), field)


def family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def address_type(version: int) -> str:
    return f"ipv{version}_addr"


def prefix(text: str, length: int) -> Expression:
    return {"prefix": {"addr": text, "len": length}}


def of_version(version: int, texts: Iterable[str]) -> list[Prefix]:
    """Those of that version; without overlaps, which nft refuses in a set."""
    found = [_parsed(each) for each in dict.fromkeys(texts) if (":" in each) == (version == 6)]
    if all(each.prefixlen == each.max_prefixlen for each in found):
        return found
    return list(collapse_addresses(found))  # type: ignore[type-var]


@lru_cache(maxsize=1 << 13)
def _parsed(text: str) -> Prefix:
    return ip_network(text, strict=False)


def one_address(text: str) -> str:
    """As nft lists it."""
    return str(_parsed(text).network_address)


def common(some: Iterable[Prefix], others: Collection[Prefix]) -> list[Prefix]:
    """Of each pair that overlaps the narrower."""
    return [max(a, b, key=lambda one: one.prefixlen) for a in some for b in others if a.overlaps(b)]


def elements(prefixes: Iterable[Prefix]) -> list[Any]:
    return [
        str(each.network_address)
        if each.prefixlen == each.max_prefixlen
        else prefix(str(each.network_address), each.prefixlen)
        for each in prefixes
    ]


def by_protocol(ports: Iterable[Ports]) -> Iterator[tuple[str, Expression]]:
    """Ranges that touch or overlap are made one: nft refuses a set in which they do."""
    merged: dict[str, list[list[int]]] = {}
    for each in sorted(ports):
        ranges = merged.setdefault(each.protocol, [])
        if ranges and each.first <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], each.last)
        else:
            ranges.append([each.first, each.last])
    for protocol, ranges in merged.items():
        yield (
            protocol,
            {"set": [first if first == last else {"range": [first, last]} for first, last in ranges]},
        )
