"""Rules between resources, and who has to give way."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.resource import Resource
from controller.spec.across import misfits, users
from tests.unit.resources import bridge, budgets, by_key, container, group, network, volume

FRONT = bridge()
MOUNTS = [{"volume": "data", "target": "/data"}]
POOL = {"volume": "pool", "target": "/pool"}
BACK = bridge("back", "10.89.0.0/24", line=50)


def found(
    *resources: Resource, earlier: tuple[Resource, ...] = (), layout: str = ""
) -> list[tuple[str, str, str]]:
    misfitting = misfits(by_key(*resources), by_key(*earlier), layout)
    return [(each.resource.key, each.path, each.why) for each in misfitting]


def on(name: str = "front", **entry: Any) -> dict[str, Any]:
    return {"network": name, **entry}


GOOD: dict[str, tuple[Resource, ...]] = {
    "a router on the network": (
        FRONT,
        container("a", on(routes=[{"to": "10.9.0.0/16", "via": "10.88.0.7"}])),
    ),
    "a router that a route leads to": (
        FRONT,
        container("a", on(routes=[{"to": "10.7.0.1/32"}, {"to": "10.9.0.0/16", "via": "10.7.0.1"}])),
    ),
    "a router on the link": (
        bridge("front", "fd88::/64"),
        container("a", on(routes=[{"to": "fd99::/64", "via": "fe80::1"}])),
    ),
    "a router of a link without subnets": (
        network("dev", type="hostDevice", device="nic0"),
        container("a", on("dev", routes=[{"to": "10.9.0.0/16", "via": "10.7.0.1"}])),
    ),
    "no IPv6 on a network without": (FRONT, container("a", on(sysctls={"ipv6.disable_ipv6": "1"}))),
    "small packets without IPv6": (FRONT, container("a", on(mtu=576))),
    "an address within its subnet": (FRONT, container("a", on(addresses=["10.88.0.9"]))),
    "the same address on two networks": (
        network("lan", type="macvlan", parent="nic0", subnets=["10.88.0.0/24"]),
        network("lan2", type="macvlan", parent="nic1", subnets=["10.88.0.0/24"]),
        container("a", on("lan", addresses=["10.88.0.9"])),
        container("b", on("lan2", addresses=["10.88.0.9"])),
    ),
    "one port for each protocol": (FRONT, container("a", "front", ports=["53:53/tcp", "53:53/udp"])),
    "one port on two addresses": (
        FRONT,
        container("a", "front", ports=["127.0.0.1:80:80"]),
        container("b", "front", ports=["127.0.0.2:80:80"]),
    ),
    "guarantees that just fit": (
        bridge(egress={"max": "100Mbit"}),
        container("a", on(egress={"min": "60Mbit"})),
        container("b", on(egress={"min": "40Mbit"})),
    ),
    "a group with its bridge": (
        FRONT,
        group("g", egress={"max": "1Mbit"}),
        container("a", "front", group="g"),
    ),
    "a group of several sorts without a bridge": (
        budgets("g", cpu={"max": "1"}, network={"egress": {"max": "1Mbit"}}),
        container("a", group="g"),
    ),
    "cpu that just fits": (
        budgets("g", cpu={"max": "1.5"}),
        container("a", group="g", limits={"cpu": {"max": "1500m"}}),
    ),
    "two groups where each subsystem has its own hierarchy": (
        budgets("c", cpu={"max": "1"}),
        budgets("m", memory={"max": "1Gi"}),
        container("a", group={"cpu": "c", "memory": "m"}),
    ),
    "volumes of its own, and what is left out": (
        volume("data"),
        volume("pool"),
        container("a", mounts=[*MOUNTS, POOL], checkpoint={"volumes": ["data"]}),
        container("b", mounts=[POOL]),
    ),
}
TORN = GOOD["two groups where each subsystem has its own hierarchy"]
BAD: dict[str, tuple[tuple[Resource, ...], str, str, str]] = {
    "a volume to take along that others mount": (
        (
            volume("pool"),
            container("a", mounts=[POOL], checkpoint={"volumes": ["pool"]}),
            container("b", mounts=[{**POOL, "readOnly": True}]),
        ),
        "a",
        "spec.checkpoint.volumes",
        'names volume "pool", which container "b" mounts, too',
    ),
    "a volume to take along that is only read": (
        (
            volume("data"),
            container("a", mounts=[{**MOUNTS[0], "readOnly": True}], checkpoint={"volumes": ["data"]}),
        ),
        "a",
        "spec.checkpoint.volumes",
        'names volume "data", which it does not mount writable',
    ),
    "no such network": (
        (container("a", "front"),),
        "a",
        "spec.networks",
        'network "front", which no valid file',
    ),
    "no such group": (
        (FRONT, container("a", "front", group="g")),
        "a",
        "spec.group",
        'group "g", which no valid file',
    ),
    "a group without a bridge": (
        (group("g", egress={"max": "1Mbit"}), container("a", group="g")),
        "a",
        "spec.group",
        "is on no bridge",
    ),
    "a sort that the group has not": (
        (budgets("g", cpu={"max": "1"}), container("a", group={"memory": "g"})),
        "a",
        "spec.group.memory",
        'shares memory of group "g", which has none',
    ),
    "more cpu than the group has": (
        (budgets("g", cpu={"max": "0.5"}), container("a", group="g", limits={"cpu": {"max": "1"}})),
        "a",
        "spec.limits.cpu.max",
        "is more than",
    ),
    "ports without a bridge": ((container("a", ports=["80:80"]),), "a", "spec.ports", "is on no bridge"),
    "a router of another network": (
        (FRONT, container("a", on(routes=[{"to": "10.9.0.0/16", "via": "10.7.0.1"}]))),
        "a",
        "spec.networks[0].routes[0].via",
        'a route via 10.7.0.1, which is not of network "front"',
    ),
    "no IPv6 on a network that has it": (
        (bridge("front", "fd88::/64"), container("a", on(sysctls={"ipv6.disable_ipv6": "1"}))),
        "a",
        "spec.networks[0].sysctls",
        "turns IPv6 off, but has an address of it",
    ),
    "packets too small for IPv6": (
        (bridge("front", "fd88::/64"), container("a", on(mtu=1279))),
        "a",
        "spec.networks[0].mtu",
        "has IPv6 on network",
    ),
    "one takes the link that another builds on": (
        (
            network("lan", type="macvlan", parent="nic0", line=1),
            network("dev", type="hostDevice", device="nic0", line=9),
        ),
        "network/dev",
        "spec.device",
        'is at odds with network "lan"',
    ),
    "an address of another subnet": (
        (FRONT, container("a", on(addresses=["10.7.0.1"]))),
        "a",
        "spec.networks[0].addresses",
        '10.7.0.1, which is not of network "front" (10.88.0.0/24)',
    ),
    "the gateway's address": (
        (FRONT, container("a", on(addresses=["10.88.0.1"]))),
        "a",
        "spec.networks[0].addresses",
        "is the gateway of",
    ),
    "the subnet's own address": (
        (FRONT, container("a", on(addresses=["10.88.0.255"]))),
        "a",
        "spec.networks[0].addresses",
        "stands for the subnet as a whole",
    ),
    "an address twice": (
        (
            FRONT,
            container("a", on(addresses=["10.88.0.9"])),
            container("b", on(addresses=["10.88.0.9"]), line=9),
        ),
        "b",
        "spec.networks[0].addresses",
        'the address 10.88.0.9, which is container "a"\'s',
    ),
    "a MAC twice": (
        (
            FRONT,
            container("a", on(mac="02:00:00:00:00:01")),
            container("b", on(mac="02-00-00-00-00-01"), line=9),
        ),
        "b",
        "spec.networks[0].mac",
        "the MAC address 02:00:00:00:00:01",
    ),
    "a port twice": (
        (
            FRONT,
            container("a", "front", ports=["80:80"]),
            container("b", "front", ports=["127.0.0.1:80:1"], line=9),
        ),
        "b",
        "spec.ports",
        'publishes 127.0.0.1:80/tcp, which is container "a"\'s',
    ),
    "subnets that overlap": (
        (FRONT, bridge("wide", "10.0.0.0/8", line=9)),
        "network/wide",
        "spec.subnets",
        'overlaps with network "front": 10.0.0.0/8 and 10.88.0.0/24',
    ),
    "one device for two networks": (
        (network("a", type="hostDevice", device="nic1"), network("b", 9, type="hostDevice", device="nic1")),
        "network/b",
        "spec.device",
        "takes link nic1",
    ),
    "one device for two containers": (
        (
            network("dev", type="hostDevice", device="nic1"),
            container("a", "dev"),
            container("b", "dev", line=9),
        ),
        "b",
        "spec.networks[0]",
        'network "dev" to itself',
    ),
    "a policy that names no network": (
        (bridge(policy={"allow": [{"name": "r", "from": {"network": "no"}}]}),),
        "network/front",
        "spec.policy.allow[0].from",
        'allows network "no"',
    ),
    "a part of nothing": (
        (FRONT, container("a", on(egress={"min": "1Mbit"}))),
        "a",
        "spec.networks[0].egress",
        "has no egress.max to take it from",
    ),
    "a limit on what a macvlan receives": (
        (network("lan", type="macvlan", parent="nic0"), container("a", on("lan", ingress={"max": "1Mbit"}))),
        "a",
        "spec.networks[0].ingress",
        "takes a bridge",
    ),
    "guarantees that do not fit": (
        (
            bridge(egress={"max": "100Mbit"}),
            container("a", on(egress={"min": "60Mbit"}), line=2),
            container("b", on(egress={"min": "60Mbit"}), line=9),
        ),
        "b",
        "spec.networks[0].egress",
        '60Mbit more guarantees 120Mbit of egress in network "front", which has 100Mbit',
    ),
    "guarantees that do not fit into a group": (
        (
            bridge(egress={"max": "100Mbit"}),
            group("g", 1, egress={"max": "10Mbit"}),
            container("a", on(egress={"min": "20Mbit"}), line=9, group="g"),
        ),
        "a",
        "spec.networks[0].egress",
        'group "g", which has 10Mbit',
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_goes_together_is_taken(case: str) -> None:
    assert found(*GOOD[case]) == []


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_go_together_is_told_of_the_one_at_fault(case: str) -> None:
    resources, key, path, why = BAD[case]
    ((who, where, said),) = found(*resources)
    assert (who, where) == (key, path)
    assert why in said


@pytest.mark.parametrize("case", [each for each in BAD if each.endswith("twice") or "overlap" in each])
def test_what_stands_since_longer_stays_wherever_it_is_written(case: str) -> None:
    resources, late, _, _ = BAD[case]
    unchanged = tuple(each for each in resources if each.key == late)
    others = tuple(each for each in resources if each.kind == "Network" and each.key != late)
    at_fault = {who for who, _, _ in found(*resources, earlier=(*unchanged, *others[: len(resources) - 2]))}
    assert late not in at_fault
    assert len(at_fault) == 1


def test_a_network_that_shrinks_below_what_it_has_promised_gives_way() -> None:
    before = (bridge(egress={"max": "100Mbit"}), container("a", on(egress={"min": "60Mbit"})))
    ((who, path, why),) = found(bridge(egress={"max": "50Mbit"}), before[1], earlier=before)
    assert (who, path) == ("network/front", "spec.egress.max")
    assert 'container "a" guarantees 60Mbit' in why


def test_a_network_that_moves_away_from_a_written_address_gives_way() -> None:
    before = (FRONT, container("a", on(addresses=["10.88.0.9"])))
    ((who, path, _),) = found(bridge(subnet="10.9.0.0/24"), before[1], earlier=before)
    assert (who, path) == ("network/front", "spec.subnets")


def test_no_more_may_share_than_can_be_told_apart() -> None:
    many = [container(f"c{number:03}", "front", line=number + 2) for number in range(602)]
    at_fault = {who for who, _, _ in found(bridge(egress={"max": "1Gbit"}), *many)}
    assert at_fault == {"c600", "c601"}
    assert found(FRONT, *many) == []


def test_partners_are_known_and_do_not_share_in_a_circle() -> None:
    a = container("a", namespaces={"net": "container:b"})
    ((who, _, why),) = found(a)
    assert (who, why) == ("a", 'shares a namespace with "b", which no valid file defines')
    b = container("b", namespaces={"pid": "container:a"})
    assert {who for who, _, _ in found(a, b)} == {"a", "b"}


def test_users_are_those_who_would_be_left_without() -> None:
    everybody = (
        FRONT,
        BACK,
        group("g", egress={"max": "1Mbit"}),
        container("b", "front", "back", group="g"),
        container("a", "front"),
        container("c"),
    )
    assert [each.name for each in users(FRONT, everybody)] == ["a", "b"]
    assert [each.name for each in users(everybody[2], everybody)] == ["b"]
    assert users(everybody[3], everybody) == ()


def test_one_hierarchy_has_one_group_for_a_container() -> None:
    (problem,) = found(*TORN, layout="v2")
    assert problem[:2] == ("a", "spec.group")
    assert "cpu of c, memory of m: cgroup v2 has one hierarchy" in problem[2]
    assert not found(*TORN, layout="hybrid")


def test_a_group_that_shrinks_below_what_a_member_has_gives_way() -> None:
    """Whoever changed is at fault."""
    wide, narrow = budgets("g", cpu={"max": "2"}), budgets("g", cpu={"max": "500m"})
    member = container("a", group="g", limits={"cpu": {"max": "1"}})
    assert [each[:2] for each in found(narrow, member, earlier=(wide, member))] == [
        ("group/g", "spec.cpu.max")
    ]
