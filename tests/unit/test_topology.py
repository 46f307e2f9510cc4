"""From what is written, and the leases, to links, routes, names and rules."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model import marks
from controller.model.attachment import Attachment, Leases, Route
from controller.model.firewall import Ports
from controller.model.network import Network
from controller.model.resource import Resource
from controller.reconcile.leases import lease
from controller.reconcile.topology import Topology, topology
from tests.unit.resources import bridge, by_key, container, network

BOTH = network("front", subnets=["10.88.0.0/24", "fd88::/64"])
BACK = bridge("back", "10.89.0.0/24")
LAN = network("lan", type="macvlan", parent="nic0", subnets=["10.90.0.0/24"])


def of(*resources: Resource, before: tuple[Resource, ...] = ()) -> Topology:
    """`before`: what there was when leases were given for the first time."""
    leases: Leases = {}
    for each in (before, resources):
        containers = {one.name: one for one in each if one.kind == "Container"}
        networks = {one.name: Network.of(one) for one in each if one.kind == "Network"}
        leases = lease(containers, networks, leases, ())
    return topology("t", by_key(*resources), leases)


def only(found: Topology, name: str = "a") -> Attachment:
    (each,) = found.attachments[name]
    return each


def on(where: str = "front", **entry: Any) -> dict[str, Any]:
    return {"network": where, **entry}


def test_links_fit_fifteen_characters_and_no_two_are_alike() -> None:
    names = [f"container-with-a-rather-long-name-{number}" for number in range(300)]
    found = of(BOTH, BACK, *(container(each, "front", "back") for each in names))
    links = [one.link for each in found.attachments.values() for one in each]
    links += [each.link for each in found.bridges.values()]
    assert len(set(links)) == len(links) == 602
    assert max(map(len, links)) <= marks.LONGEST_LINK_NAME
    macs = {one.mac for each in found.attachments.values() for one in each}
    assert len(macs) == 600


def test_two_instances_share_no_name() -> None:
    resources = by_key(BOTH, container("a", "front"))
    one, other = (topology(instance, resources, {}) for instance in ("x", "y"))
    assert only(one).link != only(other).link
    assert only(one).mac != only(other).mac
    assert one.bridges["front"].link != other.bridges["front"].link


def test_the_way_out_is_the_first_network_that_has_one() -> None:
    found = of(BACK, BOTH, LAN, container("a", "lan", "back", "front"))
    ways = {each.network: each.routes for each in found.attachments["a"]}
    assert ways["lan"] == (), "a macvlan has no gateway of its own"
    assert ways["back"] == (Route("default", "10.89.0.1"),)
    assert ways["front"] == (Route("default", "fd88::1"),), "the other family is left to it"


def test_a_way_out_that_is_written_replaces_the_gateway_s() -> None:
    own = {"to": "default", "via": "10.88.0.7"}
    found = of(BOTH, container("a", on(routes=[own, {"to": "10.9.0.0/16", "via": "10.88.0.8", "metric": 5}])))
    assert only(found).routes == (
        Route("default", "10.88.0.7"),
        Route("10.9.0.0/16", "10.88.0.8", 5),
        Route("default", "fd88::1"),
    )


def test_a_way_out_that_is_written_on_the_second_interface_replaces_that_of_the_first() -> None:
    back = bridge("back", "10.89.0.0/24")
    found = of(
        BOTH, back, container("a", "front", on("back", routes=[{"to": "default", "via": "10.89.0.9"}]))
    )
    first, second = found.attachments["a"]
    assert [each.via for each in first.routes] == ["fd88::1"]
    assert [each.via for each in second.routes] == ["10.89.0.9"]


def test_without_an_address_of_a_family_there_is_no_way_out_in_it() -> None:
    found = of(BOTH, container("a", on(addresses=["fd88::9"])))
    assert only(found).routes == (Route("default", "fd88::1"),)


def test_a_device_keeps_its_mac_and_its_mark_says_what_the_host_calls_it() -> None:
    found = of(network("direct", type="hostDevice", device="nic1"), container("a", on("direct")))
    assert (only(found).mac, only(found).link, only(found).parent) == ("", "", "nic1")
    assert marks.device_of_mark(only(found).mark) == "nic1"


def test_a_full_network_is_told_by_its_subnet() -> None:
    found = of(bridge(subnet="10.88.0.0/30"), container("a", "front"), container("b", "front"))
    assert only(found).exhausted == ()
    assert only(found, "b").exhausted == ("10.88.0.0/30",)
    assert only(of(BOTH, container("a", on(addresses=["10.88.0.9"])))).exhausted == (), "it was written so"


def test_an_address_of_somebody_else_is_told_and_not_used() -> None:
    first = (BOTH, container("a", "front"))
    late = container("b", on(addresses=["10.88.0.2", "fd88::9"]))
    found = of(*first, late, before=first)
    assert only(found).addresses == ("10.88.0.2/24", "fd88::2/64")
    assert only(found, "b").addresses == ("fd88::9/64",)
    assert only(found, "b").taken == (("10.88.0.2/24", "a"),)


def test_names_of_everybody_on_a_network_and_of_nobody_else() -> None:
    found = of(
        BOTH,
        BACK,
        container("a", "front", hostname="alpha"),
        container("b", "front", "back"),
        container("c", "back"),
    )
    front = "10.88.0.2 a alpha\nfd88::2 a alpha\n10.88.0.3 b\nfd88::3 b\n"
    assert found.names["a"].hostname == "alpha"
    assert found.names["a"].hosts[-1] == front
    assert "".join(found.names["b"].hosts).endswith(front + "10.89.0.2 b\n10.89.0.3 c\n")
    assert "alpha" not in "".join(found.names["c"].hosts)


@pytest.mark.parametrize(
    ("written", "addresses", "published"),
    [
        ("8080:80", None, [("", "10.88.0.2"), ("", "fd88::2")]),
        ("127.0.0.1:8080:80", None, [("127.0.0.1", "10.88.0.2")]),
        ("[fd00::1]:8080:80", None, [("fd00::1", "fd88::2")]),
        ("8080:80", ["fd88::9"], [("", "fd88::9")]),
        ("127.0.0.1:8080:80", ["fd88::9"], []),
    ],
)
def test_a_port_is_published_for_each_family_that_fits(
    written: str, addresses: list[str] | None, published: list[tuple[str, str]]
) -> None:
    entry = on(addresses=addresses) if addresses else on()
    found = of(BOTH, container("a", entry, ports=[written]))
    assert [(each.host_address, each.address) for each in found.firewall.publications] == published
    v4 = any(":" not in address for _, address in published)
    assert found.bridges["front"].publishes is v4, "only IPv4 has a loopback that can be led away"


def test_ports_lead_to_the_first_bridge() -> None:
    found = of(LAN, BACK, BOTH, container("a", "lan", "back", "front", ports=["80:80"]))
    assert {each.network for each in found.firewall.publications} == {"back"}


RULES: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "by name": (
        {"from": {"container": "a"}, "to": {"container": "b"}},
        ("10.88.0.2", "10.89.0.2"),
        ("10.89.0.3",),
    ),
    "by labels": ({"from": {"labels": {"app": "x"}}}, ("10.88.0.2", "10.89.0.2"), ("10.89.0.0/24",)),
    "by two labels": ({"from": {"labels": {"app": "x", "tier": "y"}}}, (), ("10.89.0.0/24",)),
    "a network": ({"from": {"network": "front"}}, ("10.88.0.0/24",), ("10.89.0.0/24",)),
    "everybody": ({}, ("10.88.0.0/24", "10.89.0.0/24"), ("10.89.0.0/24",)),
    "nobody": ({"to": {"container": "gone"}}, ("10.88.0.0/24", "10.89.0.0/24"), ()),
}


@pytest.mark.parametrize("case", RULES)
def test_a_rule_names_whom_it_means(case: str) -> None:
    rule, sources, targets = RULES[case]
    written = bridge(
        "back", "10.89.0.0/24", policy={"allow": [{"name": "r", "ports": ["53-60/udp", 80], **rule}]}
    )
    found = of(
        bridge(), written, container("a", "front", "back", labels={"app": "x"}), container("b", "back")
    )
    (allowance,) = found.firewall.allowances
    assert (allowance.name, allowance.network) == ("back/r", "back")
    assert (allowance.sources, allowance.targets) == (sources, targets)
    assert allowance.ports == (Ports("tcp", 80, 80), Ports("udp", 53, 60))


def test_only_bridges_are_filtered_and_need_forwarding() -> None:
    found = of(LAN, container("a", "lan"))
    assert found.firewall.empty
    assert found.forwarding == frozenset()
    assert of(BOTH).forwarding == {4, 6}
    assert of(BACK).forwarding == {4}


def test_a_network_that_is_not_there_is_left_out() -> None:
    assert of(container("a", "front")).attachments == {}
