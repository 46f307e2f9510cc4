"""Who is held back by a bucket of its own, and who shares out of which budget."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.attachment import Attachment, Funnel
from controller.model.network import Network
from controller.model.queueing import DEFAULT_MINOR, ROOT_MINOR, HtbClass, classifier
from controller.model.resource import Resource
from controller.reconcile.leases import lease
from controller.reconcile.shares import FIRST_GROUP, LAST_GROUP, group_minors, is_shared
from controller.reconcile.topology import Topology, topology
from tests.unit.resources import bridge, by_key, container, group

MBIT = 1_000_000
FAST = {"max": "100Mbit"}


def of(*resources: Resource) -> Topology:
    containers = {each.name: each for each in resources if each.kind == "Container"}
    networks = {each.name: Network.of(each) for each in resources if each.kind == "Network"}
    return topology("t", by_key(*resources), lease(containers, networks, {}, ()))


def attachment(found: Topology, name: str) -> Attachment:
    return found.attachments[name][0]


def leaf(funnel: Funnel, found: Topology, name: str) -> HtbClass:
    return next(each for each in funnel.tree.classes if each.minor == attachment(found, name).slot)


def on(**entry: Any) -> dict[str, Any]:
    return {"network": "front", **entry}


def test_a_limit_that_concerns_nobody_else_is_a_bucket() -> None:
    found = of(bridge(), container("a", on(egress=FAST)), container("b", "front"))
    assert attachment(found, "a").shapers["egress"].rate_bits == 100 * MBIT
    assert set(attachment(found, "a").shapers) == {"egress"}
    assert attachment(found, "b").shapers == {}
    assert found.funnels["front"] == ()


def test_a_budget_of_the_network_makes_everybody_share() -> None:
    found = of(bridge(egress=FAST), container("a", on(egress={"min": "80Mbit"})), container("b", "front"))
    (funnel,) = found.funnels["front"]
    assert funnel.direction == "egress"
    assert leaf(funnel, found, "a").rate_bits == 80 * MBIT
    assert leaf(funnel, found, "a").ceil_bits == leaf(funnel, found, "b").ceil_bits == 100 * MBIT
    assert all(attachment(found, each).funnels == {"egress": funnel.link} for each in ("a", "b"))
    assert funnel.classifier == classifier(
        {attachment(found, each).mac: attachment(found, each).slot for each in ("a", "b")}, "source"
    )


def test_a_limit_within_a_budget_is_a_ceiling_not_a_bucket() -> None:
    found = of(bridge(ingress=FAST), container("a", on(ingress={"max": "10Mbit"}, egress={"max": "5Mbit"})))
    (funnel,) = found.funnels["front"]
    assert leaf(funnel, found, "a").ceil_bits == 10 * MBIT
    assert set(attachment(found, "a").shapers) == {"egress"}


def test_a_group_alone_makes_only_its_members_share() -> None:
    found = of(
        bridge(),
        group("media", egress={"max": "50Mbit"}),
        container("a", "front", group="media"),
        container("b", "front", group={"network": "media"}),
        container("c", on(egress=FAST)),
    )
    (funnel,) = found.funnels["front"]
    parents = {leaf(funnel, found, each).parent for each in ("a", "b")}
    (minor,) = parents
    inner = next(each for each in funnel.tree.classes if each.minor == minor)
    assert (inner.parent, inner.ceil_bits) == (ROOT_MINOR, 50 * MBIT)
    assert attachment(found, "c").funnels == {}
    assert attachment(found, "c").shapers["egress"].rate_bits == 100 * MBIT
    assert {each.minor for each in funnel.tree.classes} == {
        ROOT_MINOR,
        DEFAULT_MINOR,
        minor,
        *(attachment(found, each).slot for each in ("a", "b")),
    }


def test_a_group_without_a_budget_in_that_direction_shares_nothing() -> None:
    found = of(bridge(), group("media", egress=FAST), container("a", "front", group="media"))
    assert [each.direction for each in found.funnels["front"]] == ["egress"]


def test_a_network_with_a_budget_has_its_funnel_before_anybody_is_on_it() -> None:
    (funnel,) = of(bridge(egress=FAST)).funnels["front"]
    assert [each.minor for each in funnel.tree.classes] == [ROOT_MINOR, DEFAULT_MINOR]


def test_who_comes_and_goes_changes_no_number_of_another() -> None:
    few = of(bridge(egress=FAST), container("m", "front"))
    containers = {each: container(each, "front") for each in ("a", "m", "z")}
    networks = {"front": Network.of(bridge(egress=FAST))}
    before = lease({"m": containers["m"]}, networks, {}, ())
    many = topology(
        "t", by_key(bridge(egress=FAST), *containers.values()), lease(containers, networks, before, ())
    )
    assert attachment(many, "m").slot == attachment(few, "m").slot


@pytest.mark.parametrize(
    ("written", "in_group", "shared"),
    [
        (bridge(), "", False),
        (bridge(egress=FAST), "", True),
        (bridge(ingress=FAST), "", False),
        (bridge(), "media", True),
        (bridge(type="macvlan", parent="nic0"), "media", False),
    ],
)
def test_only_bridges_share(written: Resource, in_group: str, shared: bool) -> None:
    wanted = container("a", "front", **({"group": in_group} if in_group else {}))
    groups = {"media": group("media", egress=FAST)}
    assert is_shared(Network.of(written), wanted, groups, "egress") is shared


def test_groups_have_numbers_of_their_own_that_hardly_depend_on_each_other() -> None:
    names = [f"group-{number}" for number in range(500)]
    found, fewer = group_minors(names), group_minors(names[:-1])
    assert len(set(found.values())) == 500
    assert all(FIRST_GROUP <= each <= LAST_GROUP for each in found.values())
    assert sum(found[each] != fewer[each] for each in fewer) < 5
    assert group_minors(reversed(names)) == found
