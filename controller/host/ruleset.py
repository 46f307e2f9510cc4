"""What a Firewall is in nftables: the commands of libnftables-json(5) that make it so, in one transaction.

Pure: nothing of the operating system here. Two tables of one name: `inet` filters and translates what is routed
(and what br_netfilter shows it of bridged frames); `bridge` filters what stays on a bridge, and is there only where
a network denies that (controller.host.ruleset_bridge).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from controller.host.nft_json import (
    ACCEPT,
    DROP,
    MASQUERADE,
    PROTOCOLS,
    RETURN,
    VERSIONS,
    Command,
    Expression,
    Prefix,
    Table,
    address,
    address_type,
    by_protocol,
    concat,
    elements,
    family,
    goto,
    icmp,
    match,
    meta,
    of_version,
    one_address,
    payload,
    prefix,
    tracked,
)
from controller.host.ruleset_bridge import NEIGHBOURS, Abilities, Scope, bridge_table, counter_of, ends
from controller.model.firewall import Allowance, Firewall, Publication

PREROUTING_RAW: Final = -300
DESTINATION_NAT: Final = -100
FILTER: Final = 0
SOURCE_NAT: Final = 100


def commands(firewall: Firewall, scope: Scope, abilities: Abilities) -> list[Command]:
    """Pure. What fills tables that have nothing else in them; `clearance` comes before them.

    Of two publications of the same port the first in order is taken.
    """
    tables = [_inet(firewall, scope)]
    if any(each.within == "deny" for each in firewall.bridges):
        tables.append(bridge_table(firewall, scope, abilities))
    objects = ({"add": each} for table in tables for each in table.objects)
    return [*objects, *({"add": each} for table in tables for each in table.contents)]


def clearance(wanted: Iterable[Command], live: Iterable[Mapping[str, Any]]) -> list[Command]:
    """Pure. What empties or deletes whatever of ours is there before `wanted`, all but the counters that stay.

    `live`: the objects in our tables as nft lists them. What refers to something goes before that: rules, elements.
    """
    kept = {identity: one for each in wanted if (one := each["add"]) and (identity := _identity(one))}
    found = [(kind, body) for one in live for kind, body in one.items() if kind not in {"rule", "metainfo"}]
    chains = [_bare(kind, body) for kind, body in found if kind == "chain"]
    lists = [_bare(kind, body) for kind, body in found if kind in {"set", "map"}]
    flushes = [{"flush": each} for each in (*chains, *lists)]
    return [*flushes, *_deletions(found, kept)]


def definition(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pure. What cannot be changed of an object once it is there."""
    if kind == "chain":
        return {key: body[key] for key in ("type", "hook", "prio", "policy", "dev") if key in body}
    if kind in {"set", "map"}:
        flags = body.get("flags", [])
        rest = {key: body[key] for key in ("type", "map", "timeout", "size", "gc-interval") if key in body}
        return {**rest, "flags": sorted([flags] if isinstance(flags, str) else flags)}
    return {}


def _deletions(
    found: Iterable[tuple[str, Mapping[str, Any]]], kept: Mapping[tuple[str, ...], Command]
) -> Iterator[Command]:
    order = {"chain": 0, "set": 1, "map": 1, "table": 3}
    for kind, body in sorted(found, key=lambda each: order.get(each[0], 2)):
        wanted = kept.get(_identity({kind: body}))
        if wanted is None or definition(kind, wanted[kind]) != definition(kind, body):
            yield {"delete": _bare(kind, body)}


def _identity(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Empty for what has no name of its own."""
    ((kind, body),) = one.items()
    return () if kind in {"rule", "element"} else (kind, body["family"], body.get("table", ""), body["name"])


def _bare(kind: str, body: Mapping[str, Any]) -> Command:
    return {kind: {key: body[key] for key in ("family", "table", "name") if key in body}}


def _inet(firewall: Firewall, scope: Scope) -> Table:
    table = Table("inet", scope.table)
    ours = f"{scope.bridges}*"
    _sets_of_bridges(table, firewall)
    table.chain("guard", type="filter", hook="prerouting", prio=PREROUTING_RAW)
    table.chain("prerouting", type="nat", hook="prerouting", prio=DESTINATION_NAT)
    table.chain("output", type="nat", hook="output", prio=DESTINATION_NAT)
    table.chain("forward", type="filter", hook="forward", prio=FILTER)
    table.chain("postrouting", type="nat", hook="postrouting", prio=SOURCE_NAT)
    table.chain("closed")
    _guard(table, ours)
    for version in VERSIONS:
        _publish(table, version, firewall.publications)
    _forward(table, ours)
    _closed(table, firewall.allowances)
    _masquerade(table, ours)
    return table


def _sets_of_bridges(table: Table, firewall: Firewall) -> None:
    """together: bridges whose containers reach each other; routed: bridges that can be reached from outside;
    homes: a bridge with its subnets; masqueraded: subnets that are seen outside under the host's address."""
    bridges = firewall.bridges
    together = [concat(each.link, each.link) for each in bridges if each.within == "allow"]
    table.set("together", ["ifname", "ifname"], together, ranges=False)
    table.set("routed", "ifname", [each.link for each in bridges if not each.nat], ranges=False)
    for version in VERSIONS:
        sort = address_type(version)
        homes = [
            concat(one.link, each) for one in bridges for each in elements(of_version(version, one.subnets))
        ]
        table.set(f"homes{version}", ["ifname", sort], homes, ranges=True)
        hidden = of_version(version, (each for one in bridges if one.nat for each in one.subnets))
        table.set(f"masqueraded{version}", sort, elements(hidden), ranges=True)


def _guard(table: Table, ours: str) -> None:
    """route_localnet, which 127.0.0.1 needs to lead to containers, would let them reach the host's loopback too."""
    for field in ("saddr", "daddr"):
        loopback = match(address(4, field), prefix("127.0.0.0", 8))
        table.rule("guard", f"loopback {field}", match(meta("iifname"), ours), loopback, DROP)


def _publish(table: Table, version: int, publications: Iterable[Publication]) -> None:
    """First what is published on one address of the host, then what is published on all of them."""
    exact: dict[tuple[Any, ...], Publication] = {}
    general: dict[tuple[Any, ...], Publication] = {}
    for each in sorted(publications):
        if (":" in each.address) != (version == 6):
            continue
        key = (PROTOCOLS[each.protocol], each.host_port)
        if each.host_address:
            exact.setdefault((one_address(each.host_address), *key), each)
        else:
            general.setdefault(key, each)
    types = ["inet_proto", "inet_service"]
    parts = (meta("l4proto"), payload("th", "dport"))
    with_address = concat(address(version, "daddr"), *parts)
    _translate(table, version, "exact", [address_type(version), *types], exact, with_address)
    _translate(table, version, "general", types, general, concat(*parts))


def _translate(
    table: Table,
    version: int,
    sort: str,
    types: list[str],
    entries: Mapping[tuple[Any, ...], Publication],
    key: Expression,
) -> None:
    name = f"{sort}{version}"
    addresses = [[concat(*parts), one_address(each.address)] for parts, each in entries.items()]
    table.map(f"{name}-address", types, address_type(version), addresses)
    table.map(
        f"{name}-port",
        types,
        "inet_service",
        [[concat(*parts), each.port] for parts, each in entries.items()],
    )
    if entries:
        _lead(table, version, name, key)


def _lead(table: Table, version: int, name: str, key: Expression) -> None:
    """`fib`: only what is for the host itself, whoever has that address now."""
    here = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    there, port = ({"map": {"key": key, "data": f"@{name}-{each}"}} for each in ("address", "port"))
    leads = {"dnat": {"family": family(version), "addr": there, "port": port}}
    # ::1 can lead nowhere: the kernel takes no answer to it that comes from another link than loopback.
    from_here = [match(address(6, "daddr"), "::1", "!=")] if version == 6 else []
    of_this = match(meta("nfproto"), f"ipv{version}")
    table.rule("prerouting", f"published, {name}", of_this, here, leads)
    table.rule("output", f"published, {name}", of_this, *from_here, here, leads)


def _forward(table: Table, ours: str) -> None:
    """All bridges of the instance are meant, by their names' beginning: one that nobody told us of is closed."""
    into, out = match(meta("oifname"), ours), match(meta("iifname"), ours)
    same = match(concat(meta("iifname"), meta("oifname")), "@together")
    table.rule("forward", "answers", tracked("state", ["established", "related"]), ACCEPT)
    table.rule("forward", "published", tracked("status", "dnat"), ACCEPT)
    table.rule("forward", "within a network", same, ACCEPT)
    table.rule("forward", "between networks", out, into, goto("closed"))
    table.rule("forward", "from outside", into, match(meta("oifname"), "@routed", "!="), DROP)


def _closed(table: Table, allowances: Iterable[Allowance]) -> None:
    """Who has an address of another network than his own is allowed nothing."""
    table.rule("closed", "neighbours", icmp(6, NEIGHBOURS), ACCEPT)
    for version in VERSIONS:
        home = concat(meta("iifname"), address(version, "saddr"))
        table.rule("closed", f"strangers {version}", match(home, f"@homes{version}", "!="), DROP)
    for each in allowances:
        table.counter(counter_of(each.name))
        for version in VERSIONS:
            sources, targets = of_version(version, each.sources), of_version(version, each.targets)
            if sources and targets:
                _allow(table, version, each, sources, targets)
    table.rule("closed", "all others", DROP)


def _allow(
    table: Table, version: int, allowance: Allowance, sources: Sequence[Prefix], targets: Sequence[Prefix]
) -> None:
    there, _ = ends(table, version, allowance.name, sources, targets)
    counted = ({"counter": counter_of(allowance.name)}, ACCEPT)
    for protocol, ports in by_protocol(allowance.ports):
        at_ports = match(payload(protocol, "dport"), ports)
        table.rule("closed", f"{protocol} {version} {allowance.name}", *there, at_ports, *counted)
    if not allowance.ports:
        table.rule("closed", f"any {version} {allowance.name}", *there, *counted)


def _masquerade(table: Table, ours: str) -> None:
    """Of what leaves by the bridge that it came from only what was translated: its answers must come back to us."""
    homes = {
        each: match(concat(meta("oifname"), address(each, "saddr")), f"@homes{each}") for each in VERSIONS
    }
    for version in VERSIONS:
        table.rule("postrouting", f"hairpin {version}", tracked("status", "dnat"), homes[version], MASQUERADE)
    loopback = match(address(4, "saddr"), prefix("127.0.0.0", 8))
    table.rule("postrouting", "loopback", match(meta("oifname"), ours), loopback, MASQUERADE)
    for version in VERSIONS:
        table.rule("postrouting", f"at home {version}", homes[version], RETURN)
    away = match(meta("oifname"), "lo", "!=")
    for version in VERSIONS:
        hidden = match(address(version, "saddr"), f"@masqueraded{version}")
        table.rule("postrouting", f"away {version}", away, hidden, MASQUERADE)
