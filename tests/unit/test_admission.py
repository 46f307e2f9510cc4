"""Who is let in: never more than there is room for, and never at the cost of somebody who runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.grant import Grant
from controller.model.node import Node, Policy, node_in
from controller.model.resource import NODE, Resource
from controller.reconcile.admission import Asked, House, Verdict, admit, asked_by
from controller.reconcile.dimensions import BY_KEY, amounts, budgets, memberships, rooms
from controller.reconcile.ledger import Ledger
from controller.spec.across import misfits
from tests.unit.resources import by_key, container
from tests.worlds import facts

HOST = facts("v2")
MI = 1 << 20


def node(line: int = 1, file: str = "a.yaml", name: str = "this", **spec: Any) -> Resource:
    return Resource(name, file, {}, spec, line, kind=NODE)


def house(policy: Policy = "refuse", memory: int = 1000, **more: Any) -> House:
    """One with room for so many Mi of memory."""
    reserved = {"memory": HOST.memory_total - memory * MI}
    return House(rooms(Node("this", reserved, {"guarantees": policy, "limits": policy}), HOST), **more)


def limits(memory: int) -> dict[str, Any]:
    return {"limits.memory": {"max": f"{memory}Mi"}}


def asked(**memory: int) -> dict[str, Asked]:
    return {name: Asked(limits(each), amounts(limits(each), HOST)) for name, each in memory.items()}


def given_before(**memory: int) -> dict[str, Grant]:
    return {name: Grant(each.sections, each.amounts) for name, each in asked(**memory).items()}


def summary(verdict: Verdict) -> tuple[set[str], set[str], set[str], set[str]]:
    return set(verdict.grants), set(verdict.waiting), set(verdict.kept), set(verdict.over)


def test_whoever_comes_first_is_let_in_and_a_smaller_one_passes_who_does_not_fit() -> None:
    found = admit(asked(a=700, b=700, c=300), {}, (), house())
    assert summary(found) == ({"a", "c"}, {"b"}, set(), set())
    assert found.waiting["b"] == (
        "memory.max of 3 containers: 1.7Gi of 1000Mi (8Gi less 7Gi reserved): this one 700Mi, a 700Mi, c 300Mi"
    )


def test_whoever_was_let_in_stays_whatever_the_order_of_files() -> None:
    found = admit(asked(a=700, b=700), given_before(b=700), (), house())
    assert summary(found) == ({"b"}, {"a"}, set(), set())


def test_whoever_runs_stays_although_nobody_knows_how_he_came_in() -> None:
    found = admit(asked(a=700, b=700, c=1), {}, {"a", "b"}, house())
    assert summary(found) == ({"a", "b"}, {"c"}, set(), {"b"})


def test_an_edit_that_does_not_fit_is_kept_back_and_others_of_the_same_container_are_not() -> None:
    before = given_before(a=300, b=700)
    wanted = {"limits.memory": {"max": "400Mi"}, "limits.pids": {"max": 5}}
    found = admit({"a": Asked(wanted, amounts(wanted, HOST))}, before, (), house())
    assert found.grants["a"].sections == {**limits(300), "limits.pids": {"max": 5}}
    assert found.kept["a"].startswith("memory.max of 2 containers: 1.1Gi of 1000Mi")
    assert found.due["a"] == {"memory.max": 300 * MI, "pids.max": 5}


def test_what_is_given_back_is_free_only_when_it_has_been_seen_to_be() -> None:
    found = admit(asked(a=100, b=700), given_before(a=700), (), house())
    assert found.waiting.keys() == {"b"}
    assert (found.grants["a"].amounts, found.due["a"]) == (
        {"memory.max": 700 * MI},
        {"memory.max": 100 * MI},
    )
    again = admit(asked(a=100, b=700), {"a": Grant(limits(100), found.due["a"])}, (), house())
    assert summary(again) == ({"a", "b"}, set(), set(), set())


def test_one_that_is_being_removed_holds_what_it_has() -> None:
    assert summary(admit(asked(b=700), given_before(a=700), (), house())) == ({"a"}, {"b"}, set(), set())


def test_a_warning_is_for_whoever_came_last_and_an_increase_comes_last() -> None:
    found = admit(asked(a=700, b=700), given_before(b=700), (), house("warn"))
    assert summary(found) == ({"a", "b"}, set(), set(), {"a"})
    again = admit(asked(a=700, b=800), found.grants, (), house("warn"))
    assert list(again.grants) == ["a", "b"]
    assert set(again.over) == {"b"}


def test_nothing_is_said_where_everything_is_allowed() -> None:
    assert summary(admit(asked(a=700, b=9000), {}, (), house("allow"))) == ({"a", "b"}, set(), set(), set())


def test_members_of_a_group_count_as_no_more_than_its_budget() -> None:
    shared = house(
        budgets={"memory.max": {"g": 600 * MI}}, groups={"memory": {"a": "g", "b": "g", "c": "other"}}
    )
    assert summary(admit(asked(a=500, b=500, c=400), {}, (), shared))[1] == set()
    assert summary(admit(asked(a=500, b=500, c=401), {}, (), shared))[1] == {"c"}


def test_a_member_without_a_limit_may_take_the_whole_budget() -> None:
    shared = house(budgets={"memory.max": {"g": 600 * MI}}, groups={"memory": {"a": "g"}})
    found = admit({"a": Asked(), **asked(b=401)}, {}, (), shared)
    assert summary(found) == ({"a"}, {"b"}, set(), set())
    assert summary(admit({"a": Asked(), **asked(b=401)}, given_before(b=401), (), shared))[1] == {"a"}


def test_three_are_named_and_the_others_counted() -> None:
    many = {f"c{each}": 100 + each for each in range(8)}
    found = admit(asked(**many, late=500), {}, (), house())
    assert found.waiting["late"].endswith(": this one 500Mi, c7 107Mi, c6 106Mi, c5 105Mi, 5 others 510Mi")


AMOUNTS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing": ({}, {}),
    "no limit": ({"limits.memory": {"max": "max", "swap": "max"}, "limits.cpu": {"max": "max"}}, {}),
    "all": (
        {"limits.memory": {"max": "1Gi", "swap": 0}, "limits.cpu": {"max": "1.5"}, "limits.pids": {"max": 9}},
        {"memory.max": 1 << 30, "memory.swap": 0, "cpu.max": 1500, "pids.max": 9},
    ),
    "the larger guarantee": ({"limits.memory": {"low": "2Mi", "min": "1Mi"}}, {"memory.guaranteed": 2 * MI}),
    "all there is": ({"limits.memory": {"low": "max"}}, {"memory.guaranteed": HOST.memory_total}),
    "all it may have": (
        {"limits.memory": {"min": "max", "max": "1Mi"}},
        {"memory.guaranteed": MI, "memory.max": MI},
    ),
}


@pytest.mark.parametrize("situation", AMOUNTS)
def test_what_is_asked_for(situation: str) -> None:
    written, wanted = AMOUNTS[situation]
    assert amounts(written, HOST) == wanted


def test_those_who_rest_ask_for_nothing_and_files_come_in_order() -> None:
    resources = by_key(container("b", line=9), container("a", line=20), container("c", line=3), node())
    assert list(asked_by(resources, {"c"}, {}, HOST)) == ["b", "a"]


def test_without_a_node_guarantees_are_warned_about_and_limits_allowed() -> None:
    known = rooms(node_in({}), HOST)
    assert {each.policy for key, each in known.items() if key != "memory.guaranteed"} == {"allow"}
    assert known["memory.guaranteed"].policy == "warn"
    assert known["cpu.max"].capacity == 4000


def test_what_the_host_keeps_is_taken_off_but_never_below_nothing() -> None:
    written = node(reserved={"memory": "7Gi", "cpu": "500m", "pids": 99999}, overcommit={"limits": "refuse"})
    known = rooms(node_in(by_key(written)), HOST)
    assert (known["memory.max"].shown, known["memory.guaranteed"].policy) == (
        "1Gi (8Gi less 7Gi reserved)",
        "warn",
    )
    assert (known["cpu.max"].capacity, known["pids.max"].capacity) == (3500, 0)


def test_budgets_and_members_are_those_of_the_specs() -> None:
    group = Resource("g", "a.yaml", {}, {"memory": {"max": "1Gi"}, "cpu": {"weight": 5}}, kind="Group")
    resources = by_key(group, container("a", group="g"), container("b", group={"cpu": "g"}))
    assert budgets(resources, HOST)["memory.max"] == {"g": 1 << 30}
    assert budgets(resources, HOST)["cpu.max"] == {}
    assert memberships(resources)["memory"] == {"a": "g"}


def test_a_second_node_is_a_mistake_that_names_both_files() -> None:
    first, second = node(), node(name="other", file="b.yaml")
    (found,) = misfits(by_key(first, second), {}, "")
    assert (found.resource.file, "a.yaml" in found.why) == ("b.yaml", True)
    (found,) = misfits(by_key(first, second), by_key(second), "")
    assert (found.resource.file, "b.yaml" in found.why) == ("a.yaml", True)


# --- laws ---

NAMES = st.sampled_from("abcdefgh")
MEMORY = st.dictionaries(NAMES, st.integers(1, 600))


@given(MEMORY, MEMORY, st.integers(0, 2000))
def test_never_more_than_there_is_room_for(wanted: dict[str, int], before: dict[str, int], room: int) -> None:
    held = {name: each for name, each in before.items() if sum(before.values()) <= room}
    found = admit(asked(**wanted), given_before(**held), (), house(memory=room))
    assert sum(each.amounts["memory.max"] for each in found.grants.values()) <= room * MI


@given(MEMORY, MEMORY, st.integers(0, 2000), st.sampled_from(["allow", "warn", "refuse"]))
def test_whoever_has_something_keeps_it_and_nobody_waits_while_there_is_room(
    wanted: dict[str, int], before: dict[str, int], room: int, policy: Policy
) -> None:
    found = admit(asked(**wanted), given_before(**before), (), house(policy, room))
    assert set(before) <= set(found.grants)
    for name, grant in given_before(**before).items():
        assert found.grants[name].amounts["memory.max"] >= grant.amounts["memory.max"]
        assert found.grants[name].sections in (grant.sections, asked(**wanted).get(name, grant).sections)
    assert set(wanted) == (set(found.grants) & set(wanted)) | set(found.waiting)
    for name in (*found.waiting, *found.kept):
        assert found.ledgers["memory.max"].total_with(name, wanted[name] * MI) > room * MI
    if policy != "refuse":
        assert (found.waiting, found.kept) == ({}, {})


@given(MEMORY, MEMORY, st.integers(0, 2000), st.sampled_from(["allow", "warn", "refuse"]))
def test_asked_again_the_answer_is_the_same(
    wanted: dict[str, int], before: dict[str, int], room: int, policy: Policy
) -> None:
    first = admit(asked(**wanted), given_before(**before), (), house(policy, room))
    again = admit(asked(**wanted), first.grants, (), house(policy, room))
    assert list(again.grants.items()) == list(first.grants.items())
    assert (again.waiting, again.kept, again.over) == (first.waiting, first.kept, first.over)


@given(MEMORY, st.integers(0, 2000), NAMES)
def test_more_room_costs_nobody_his_place(wanted: dict[str, int], room: int, gone: str) -> None:
    """Whoever leaves, or whatever is added: all who were in stay in."""
    first = admit(asked(**wanted), {}, (), house(memory=room))
    left = {name: each for name, each in wanted.items() if name != gone}
    kept = {name: each for name, each in first.grants.items() if name != gone}
    for after in (
        admit(asked(**left), kept, (), house(memory=room)),
        admit(asked(**left), kept, (), house(memory=room + 100)),
    ):
        assert set(kept) <= set(after.grants)
        assert (after.kept, after.over) == ({}, {})


@given(
    st.lists(st.tuples(NAMES, st.none() | st.integers(0, 50)), max_size=20),
    st.dictionaries(st.sampled_from("xyz"), st.integers(0, 60)),
    st.dictionaries(NAMES, st.sampled_from("xyz")),
)
def test_the_sum_is_that_of_the_groups_and_of_those_in_none(
    entries: list[tuple[str, int | None]], known: dict[str, int], groups: dict[str, str]
) -> None:
    ledger = Ledger(known, groups)
    for name, amount in entries:
        ledger.put(name, amount)
    held = dict(entries)
    alone = sum(each or 0 for name, each in held.items() if groups.get(name) not in known)
    together = 0
    for group, budget in known.items():
        members = [each for name, each in held.items() if groups.get(name) == group]
        together += budget if None in members else min(budget, sum(filter(None, members)))
    assert ledger.total == alone + together
    for name in held:
        ledger.drop(name)
    assert ledger.total == 0


def test_every_dimension_has_a_key_of_its_own() -> None:
    assert len(BY_KEY) == 5


def test_groups_are_named_as_those_who_hold_something() -> None:
    """A budget is held by nobody in particular, and has to be found in the sum all the same."""
    ledger = Ledger(budgets={"jobs": 1200}, groups={"a": "jobs", "b": "jobs"})
    for name, amount in (("a", None), ("b", 500), ("alone", 300)):
        ledger.put(name, amount)
    assert ledger.shares == {"alone": 300, "group jobs": 1200}
    assert sum(ledger.shares.values()) == ledger.total
