"""Addresses that masu chooses: whoever has one keeps it, and no two have the same."""

from __future__ import annotations

import random

from controller.model.attachment import FIRST_SLOT, Lease, Leases
from controller.model.network import Network
from controller.model.resource import Resource
from controller.reconcile.leases import lease, without
from tests.unit.resources import bridge, container, network

FRONT = bridge()


def give(
    *resources: Resource, before: Leases | None = None, leaving: tuple[str, ...] = ()
) -> dict[str, dict[str, Lease]]:
    containers = {each.name: each for each in resources if each.kind == "Container"}
    networks = {each.name: Network.of(each) for each in resources if each.kind == "Network"}
    return lease(containers, networks, before or {}, leaving)


def addresses(found: Leases, where: str = "front") -> dict[str, tuple[str, ...]]:
    return {name: each.addresses for name, each in found.get(where, {}).items()}


def test_the_first_free_address_of_each_subnet_is_given_but_never_the_gateways() -> None:
    both = network("front", subnets=["10.88.0.0/24", "fd88::/64"], gateways=["10.88.0.2"])
    found = give(both, container("a", "front"), container("b", "front"))
    assert addresses(found) == {"a": ("10.88.0.1", "fd88::1"), "b": ("10.88.0.3", "fd88::2")}


def test_what_is_written_for_anybody_is_given_to_nobody_else() -> None:
    found = give(
        FRONT, container("a", "front"), container("z", {"network": "front", "addresses": ["10.88.0.2"]})
    )
    assert addresses(found) == {"a": ("10.88.0.3",), "z": ("10.88.0.2",)}


def test_whoever_has_an_address_keeps_it_whatever_comes_and_goes() -> None:
    first = give(FRONT, container("b", "front"), container("c", "front"))
    second = give(FRONT, container("a", "front"), container("c", "front"), before=first)
    assert addresses(second)["c"] == addresses(first)["c"] == ("10.88.0.3",)
    assert addresses(second)["a"] == ("10.88.0.2",), "what b gave back"


def test_what_was_given_back_is_given_in_order_and_each_once() -> None:
    first = give(FRONT, *(container(each, "front") for each in "bdfhj"))
    second = give(FRONT, *(container(each, "front") for each in "acdehk"), before=first)
    assert addresses(second) == {
        "d": ("10.88.0.3",),
        "h": ("10.88.0.5",),
        "a": ("10.88.0.2",),
        "c": ("10.88.0.4",),
        "e": ("10.88.0.6",),
        "k": ("10.88.0.7",),
    }
    slots = [each.slot for each in second["front"].values()]
    assert len(slots) == len(set(slots))


def test_whoever_is_leaving_keeps_it_until_gone() -> None:
    first = give(FRONT, container("a", "front"))
    second = give(FRONT, container("b", "front"), before=first, leaving=("a",))
    assert addresses(second) == {"a": ("10.88.0.2",), "b": ("10.88.0.3",)}
    third = give(FRONT, container("b", "front"), container("c", "front"), before=without(second, "a"))
    assert addresses(third) == {"b": ("10.88.0.3",), "c": ("10.88.0.2",)}


def test_what_a_leaving_one_had_written_down_is_nobody_elses_until_it_is_gone() -> None:
    written = {"network": "front", "addresses": ["10.88.0.2"]}
    first = give(FRONT, container("a", written))
    second = give(FRONT, container("b", "front"), container("c", written), before=first, leaving=("a",))
    assert addresses(second) == {"a": ("10.88.0.2",), "b": ("10.88.0.3",), "c": ()}
    third = give(FRONT, container("b", "front"), container("c", written), before=without(second, "a"))
    assert addresses(third) == {"b": ("10.88.0.3",), "c": ("10.88.0.2",)}


def test_two_that_change_places_both_get_what_is_written() -> None:
    def at(name: str, last: int) -> Resource:
        return container(name, {"network": "front", "addresses": [f"10.88.0.{last}"]})

    first = give(FRONT, at("a", 5), at("b", 6))
    assert addresses(give(FRONT, at("a", 6), at("b", 5), before=first)) == {
        "a": ("10.88.0.6",),
        "b": ("10.88.0.5",),
    }


def test_an_address_that_is_no_longer_in_the_subnet_is_changed() -> None:
    first = give(FRONT, container("a", "front"))
    assert addresses(give(bridge(subnet="10.9.0.0/24"), container("a", "front"), before=first)) == {
        "a": ("10.9.0.2",)
    }


def test_an_address_that_somebody_has_is_not_taken_by_writing_it_down() -> None:
    first = give(FRONT, container("a", "front"))
    taken = container("b", {"network": "front", "addresses": ["10.88.0.2"]})
    assert addresses(give(FRONT, container("a", "front"), taken, before=first))["a"] == ("10.88.0.2",)


def test_a_full_subnet_gives_nothing_and_takes_nothing() -> None:
    small = bridge(subnet="10.88.0.0/30")
    found = give(small, container("a", "front"), container("b", "front"))
    assert addresses(found) == {"a": ("10.88.0.2",), "b": ()}
    again = give(small, container("b", "front"), before=without(found, "a"))
    assert addresses(again) == {"b": ("10.88.0.2",)}


def test_a_new_subnet_adds_an_address_and_leaves_the_other() -> None:
    first = give(FRONT, container("a", "front"))
    wider = network("front", subnets=["10.88.0.0/24", "fd88::/64"])
    assert addresses(give(wider, container("a", "front"), before=first)) == {"a": ("10.88.0.2", "fd88::2")}


def test_nothing_depends_on_the_order_and_nothing_is_given_twice() -> None:
    """Played with a fixed seed: containers come, go, and write addresses of their own."""
    chance = random.Random(7)  # a fixed seed
    before: Leases = {}
    alive: dict[str, Resource] = {}
    for _ in range(300):
        name = f"c{chance.randrange(40)}"
        if name in alive and chance.random() < 0.5:
            del alive[name]
            before = without(before, name)
        elif chance.random() < 0.3:
            own = f"10.88.0.{chance.randrange(100, 200)}"
            if not any(own in str(each.spec) for each in alive.values()):
                alive[name] = container(name, {"network": "front", "addresses": [own]})
        else:
            alive[name] = container(name, "front")
        shuffled = chance.sample(sorted(alive.values(), key=lambda each: each.name), len(alive))
        found = give(FRONT, *shuffled, before=before)
        assert found == give(FRONT, *alive.values(), before=before)
        given = [one for each in found.get("front", {}).values() for one in each.addresses]
        assert len({*given}) == len(given)
        slots = [each.slot for each in found.get("front", {}).values()]
        assert len(set(slots)) == len(slots)
        assert all(each >= FIRST_SLOT for each in slots)
        kept = before.get("front", {})
        assert all(
            found["front"][each].slot == kept[each].slot for each in found.get("front", {}) if each in kept
        ), "a class of traffic keeps its number"
        before = found
