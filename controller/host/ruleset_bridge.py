"""The bridge family's part of a ruleset: who may reach whom within a network that denies it otherwise. Pure.

Without connection tracking, which bridges do not have on every kernel: an answer is what comes from where
connections may be opened to, and opens none itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from controller.frozen import dataclass
from controller.host.nft_json import (
    ACCEPT,
    DROP,
    PROTOCOLS,
    VERSIONS,
    Expression,
    Prefix,
    Table,
    address,
    address_type,
    by_protocol,
    common,
    elements,
    goto,
    icmp,
    match,
    meta,
    of_version,
    payload,
    prefix,
)
from controller.model.firewall import Allowance, Firewall

BRIDGE_FILTER: Final = -200
COUNTER: Final = "allow/"
NO_REALM: Final = 0xFFFF_FFFF
FRAGMENT_OFFSET: Final = 0x1FFF
NEIGHBOURS: Final = ("nd-neighbor-solicit", "nd-neighbor-advert")
ERRORS: Final = ("destination-unreachable", "time-exceeded", "parameter-problem")

Way = tuple[Expression, Expression]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose ruleset: the tables' name, what the names of all the instance's bridges begin with, and those of all
    the links on them."""

    table: str
    bridges: str
    ports: str


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this kernel's bridge tables can match. `names`: a frame's bridge (nft_meta_bridge). `handover`: whether
    br_netfilter shows a frame to the inet tables too: such a frame has a route, and a route has a realm, be it 0.
    """

    names: bool = True
    handover: bool = True


def counter_of(allowance: str) -> str:
    """Pure. An allowance's name as an identifier of nft; `allowance_of` is the way back."""
    return COUNTER + re.sub(r"[^A-Za-z0-9./-]", lambda found: _escaped(found[0]), allowance)


def allowance_of(counter: str) -> str | None:
    """Pure. None: it is not the counter of an allowance."""
    if not counter.startswith(COUNTER):
        return None
    name = counter.removeprefix(COUNTER).encode()
    return re.sub(rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), name).decode(errors="replace")


def _escaped(character: str) -> str:
    return "".join(f"_{byte:02x}" for byte in character.encode())


def ends(
    table: Table, version: int, allowance: str, sources: Iterable[Prefix], targets: Iterable[Prefix]
) -> tuple[Way, Way]:
    """Matches of the way there and of the way back, by two sets that are made here."""
    name = counter_of(allowance).removeprefix(COUNTER)
    for word, wanted in (("from", sources), ("to", targets)):
        table.set(f"{word}{version}/{name}", address_type(version), elements(wanted), ranges=True)

    def way(source: str, target: str) -> Way:
        first = match(address(version, "saddr"), f"@{source}{version}/{name}")
        return first, match(address(version, "daddr"), f"@{target}{version}/{name}")

    return way("from", "to"), way("to", "from")


def bridge_table(firewall: Firewall, scope: Scope, abilities: Abilities) -> Table:
    """Pure. What passes from one port of a bridge to another; the host's own address on it is none of these."""
    table = Table("bridge", scope.table)
    denied = [each for each in firewall.bridges if each.within == "deny"]
    table.chain("forward", type="filter", hook="forward", prio=BRIDGE_FILTER)
    table.chain("closed")
    if abilities.names:
        table.set("denied", "ifname", [each.link for each in denied], ranges=False)
        table.rule("forward", "other bridges", match(meta("ibrname"), "@denied", "!="), ACCEPT)
    else:
        for key in ("iifname", "oifname"):
            table.rule("forward", f"others' {key}", match(meta(key), f"{scope.ports}*", "!="), ACCEPT)
    if abilities.handover:
        table.rule("forward", "decided by inet", match(meta("rtclassid"), NO_REALM, "!="), ACCEPT)
    table.rule("forward", "arp", match(meta("protocol"), "arp"), ACCEPT)
    if abilities.names or len(denied) == len(firewall.bridges):
        table.rule("forward", "within a network", goto("closed"))
    else:
        _by_address(table, [each for one in denied for each in one.subnets])
    _closed(table, firewall)
    return table


def _by_address(table: Table, subnets: Collection[str]) -> None:
    """Where a frame's bridge cannot be asked: what belongs to a network that denies, and what may (link-local)."""
    for version in VERSIONS:
        denied = elements(of_version(version, subnets))
        table.set(f"denied{version}", address_type(version), denied, ranges=True)
        for field in ("saddr", "daddr"):
            closed = match(address(version, field), f"@denied{version}")
            table.rule("forward", f"within a network, {field} {version}", closed, goto("closed"))
    local = [match(address(6, each), prefix("fe80::", 10)) for each in ("saddr", "daddr")]
    table.rule("forward", "within a network, link-local", *local, goto("closed"))


def _closed(table: Table, firewall: Firewall) -> None:
    """Later fragments have no port, and are nothing without the first."""
    later = match({"&": [payload("ip", "frag-off"), FRAGMENT_OFFSET]}, 0, "!=")
    table.rule("closed", "fragments 4", later, ACCEPT)
    later = match({"exthdr": {"name": "frag", "field": "frag-off"}}, 0, "!=")
    table.rule("closed", "fragments 6", later, ACCEPT)
    table.rule("closed", "errors and answers 4", icmp(4, ("echo-reply", *ERRORS)), ACCEPT)
    needed = ("echo-reply", *ERRORS, "packet-too-big", *NEIGHBOURS)
    table.rule("closed", "errors and answers 6", icmp(6, needed), ACCEPT)
    subnets = {each.network: each.subnets for each in firewall.bridges if each.within == "deny"}
    for each in firewall.allowances:
        if each.network in subnets:
            _allow(table, each, subnets[each.network])
    table.rule("closed", "all others", DROP)


def _allow(table: Table, allowance: Allowance, subnets: Collection[str]) -> None:
    """Sources outside of the network's own subnets are no business of its bridge."""
    table.counter(counter_of(allowance.name))
    for version in VERSIONS:
        here = of_version(version, subnets)
        sources = common(of_version(version, allowance.sources), here)
        targets = common(of_version(version, allowance.targets), here)
        if not sources or not targets:
            continue
        there, back = ends(table, version, allowance.name, sources, targets)
        for protocol, ports in by_protocol(allowance.ports):
            at_ports, from_ports = (match(payload(protocol, each), ports) for each in ("dport", "sport"))
            _both_ways(table, version, allowance.name, protocol, ((*there, at_ports), (*back, from_ports)))
        if not allowance.ports:
            _both_ways(table, version, allowance.name, "tcp", (there, back))
            _others_both_ways(table, version, allowance.name, (there, back))


def _both_ways(
    table: Table,
    version: int,
    name: str,
    protocol: str,
    ways: tuple[Sequence[Expression], Sequence[Expression]],
) -> None:
    """Of UDP nothing tells an answer from a question but the ports."""
    there, back = ways
    counted = ({"counter": counter_of(name)}, ACCEPT)
    opens, goes_on = ([_opens()], [_opens("!=")]) if protocol == "tcp" else ([], [])
    table.rule("closed", f"{protocol} {version} {name}", *there, *opens, *counted)
    if goes_on:
        table.rule("closed", f"{protocol} on {version} {name}", *there, *goes_on, ACCEPT)
    table.rule("closed", f"{protocol} back {version} {name}", *back, *goes_on, ACCEPT)


def _others_both_ways(
    table: Table, version: int, name: str, ways: tuple[Sequence[Expression], Sequence[Expression]]
) -> None:
    there, back = ways
    told_apart: Any = {"set": [PROTOCOLS[each] for each in ("icmp", "tcp", "icmpv6")]}
    others = match(meta("l4proto"), told_apart, "!=")
    table.rule("closed", f"any {version} {name}", *there, {"counter": counter_of(name)}, ACCEPT)
    table.rule("closed", f"any back {version} {name}", *back, others, ACCEPT)


def _opens(operator: str = "==") -> Expression:
    """A segment that opens a connection: SYN without ACK."""
    return match({"&": [payload("tcp", "flags"), {"|": ["syn", "ack"]}]}, "syn", operator)
