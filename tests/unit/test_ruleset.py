"""The ruleset as commands: whole, in an order that can be carried out, and comparable to what is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.host.listing import difference, form_of, from_json, objects_of, structure, to_json
from controller.host.nft_json import LONGEST_COMMENT, Command
from controller.host.ruleset import clearance, commands
from controller.host.ruleset_bridge import Abilities, Scope, allowance_of, counter_of
from controller.model.firewall import Allowance, FilteredBridge, Firewall, Ports, Publication

SCOPE = Scope("masu_test", "mbtest-", "mvtest-")
FRONT = FilteredBridge("front", "mbtest-front", ("10.88.1.0/24", "fd00:1::/64"), nat=True)
BACK = FilteredBridge("back", "mbtest-back", ("10.88.2.0/24", "fd00:2::/64"), nat=True, within="deny")
OPEN = FilteredBridge("open", "mbtest-open", ("10.88.3.0/24",), nat=False)
WEB = Allowance(
    "back/web",
    "back",
    ("10.88.1.10", "10.88.2.0/24", "10.88.2.12", "fd00:1::10"),
    ("10.88.2.10", "fd00:2::10"),
    (Ports("tcp", 80, 80), Ports("tcp", 81, 90), Ports("tcp", 85, 95), Ports("udp", 53, 53)),
)
ALL = Firewall(
    (FRONT, BACK, OPEN),
    (
        Publication("tcp", "", 8000, "10.88.1.10", 80, "a", "front"),
        Publication("tcp", "", 8000, "fd00:1::10", 80, "a", "front"),
        Publication("udp", "192.0.2.1", 8001, "10.88.1.10", 53, "a", "front"),
        Publication("udp", "2001:db8::1", 8001, "fd00:1::10", 53, "a", "front"),
    ),
    (WEB, Allowance("open/any", "open", ("fd00:1::/64", "10.88.1.0/24"), ("10.88.3.0/24",))),
)
ABILITIES = [Abilities(names, handover) for names in (True, False) for handover in (True, False)]


def made(firewall: Firewall, abilities: Abilities = ABILITIES[0]) -> list[Command]:
    return commands(firewall, SCOPE, abilities)


def bodies(found: list[Command], kind: str, verb: str = "add") -> list[dict[str, Any]]:
    return [each[verb][kind] for each in found if kind in each.get(verb, {})]


def elements(found: list[Command], name: str, family: str = "inet") -> Any:
    lists = (
        each["elem"] for each in bodies(found, "element") if (each["family"], each["name"]) == (family, name)
    )
    return next(lists, [])


def comments(found: list[Command], family: str, chain: str) -> list[str]:
    rules = bodies(found, "rule")
    return [each["comment"] for each in rules if (each["family"], each["chain"]) == (family, chain)]


def referred(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("@"):
        yield value[1:]
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in {"goto", "jump"}:
                yield each["target"]
            elif key == "counter" and isinstance(each, str):
                yield each
            else:
                yield from referred(each)
    elif isinstance(value, list):
        for each in value:
            yield from referred(each)


@pytest.mark.parametrize("abilities", ABILITIES)
@pytest.mark.parametrize("firewall", [Firewall(), Firewall((FRONT,)), Firewall((BACK,)), ALL])
def test_everything_that_is_referred_to_is_there_before(firewall: Firewall, abilities: Abilities) -> None:
    known: set[tuple[str, str]] = set()
    for each in made(firewall, abilities):
        ((kind, body),) = each["add"].items()
        if kind in {"rule", "element"}:
            assert {(body["family"], name) for name in referred(body)} <= known
        else:
            known.add((body["family"], body["name"]))


@pytest.mark.parametrize("abilities", ABILITIES)
def test_every_command_is_about_our_own_tables(abilities: Abilities) -> None:
    for each in made(ALL, abilities):
        ((kind, body),) = each["add"].items()
        assert body["family"] in {"inet", "bridge"}
        assert body["name" if kind == "table" else "table"] == "masu_test"


@pytest.mark.parametrize("abilities", ABILITIES)
def test_every_rule_of_a_chain_has_a_comment_of_its_own(abilities: Abilities) -> None:
    rules = [
        (each["family"], each["chain"], each["comment"]) for each in bodies(made(ALL, abilities), "rule")
    ]
    assert len(rules) == len(set(rules))


def test_long_names_make_comments_that_nft_takes() -> None:
    long = Firewall((BACK,), (), (replace(WEB, name="back/" + "ü" * 100),))
    assert max(len(each["comment"].encode()) for each in bodies(made(long), "rule")) == LONGEST_COMMENT


def test_bridge_table_is_there_only_where_a_network_denies() -> None:
    families = [each["family"] for each in bodies(made(Firewall((FRONT, OPEN))), "table")]
    assert families == ["inet"]
    assert [each["family"] for each in bodies(made(ALL), "table")] == ["inet", "bridge"]


def test_nothing_is_told_of_a_bridge_and_all_of_the_instance_are_closed() -> None:
    found = made(Firewall())
    assert elements(found, "together") == elements(found, "routed") == []
    assert comments(found, "inet", "forward")[-2:] == ["between networks", "from outside"]
    assert comments(found, "inet", "closed")[-1] == "all others"


def test_order_in_which_things_are_told_does_not_matter_to_bridges_and_publications() -> None:
    other = replace(ALL, publications=ALL.publications[::-1])
    assert made(other) == made(ALL)


def test_publication_of_the_same_port_is_taken_once() -> None:
    first = Publication("tcp", "", 8000, "10.88.1.10", 80, "a", "front")
    twice = Firewall((FRONT,), (replace(first, address="10.88.1.11"), first))
    found = made(twice)
    assert elements(found, "general4-address") == [[{"concat": [6, 8000]}, "10.88.1.10"]]
    assert elements(found, "general4-port") == [[{"concat": [6, 8000]}, 80]]


def test_addresses_are_written_as_nft_lists_them() -> None:
    told = Publication("tcp", "2001:0db8:0:0::1", 80, "FD00:1:0::10", 80, "a", "front")
    found = made(Firewall((FRONT,), (told,)))
    assert elements(found, "exact6-address") == [[{"concat": ["2001:db8::1", 6, 80]}, "fd00:1::10"]]


def test_no_publication_means_no_rule_that_looks_for_one() -> None:
    assert comments(made(Firewall((FRONT,))), "inet", "prerouting") == []


def test_sources_that_overlap_become_one_and_families_are_apart() -> None:
    found = made(ALL)
    narrow = {"prefix": {"addr": "10.88.2.0", "len": 24}}
    assert elements(found, "from4/back/web") == ["10.88.1.10", narrow]
    assert elements(found, "from6/back/web") == ["fd00:1::10"]


def test_bridge_knows_only_the_sources_of_its_own_network() -> None:
    found = made(ALL)
    assert elements(found, "from4/back/web", "bridge") == [{"prefix": {"addr": "10.88.2.0", "len": 24}}]
    assert elements(found, "from6/back/web", "bridge") == []


def test_ports_that_touch_become_one_range() -> None:
    rule = next(each for each in bodies(made(ALL), "rule") if each["comment"] == "tcp 4 back/web")
    assert rule["expr"][2]["match"]["right"] == {"set": [{"range": [80, 95]}]}


def test_allowance_without_anybody_has_a_counter_and_no_rule() -> None:
    nobody = Allowance("back/nobody", "back", (), ("10.88.2.10",))
    found = made(Firewall((BACK,), (), (nobody,)))
    assert [each["name"] for each in bodies(found, "counter")] == ["allow/back/nobody"] * 2
    assert not any("nobody" in each for each in comments(found, "inet", "closed"))


@given(st.text(min_size=1, max_size=60))
def test_name_of_a_counter_leads_back_to_the_allowance(name: str) -> None:
    counter = counter_of(name)
    assert allowance_of(counter) == name
    assert counter.isascii()
    assert all(each.isalnum() or each in "/-_." for each in counter)


def test_other_counters_are_no_allowances() -> None:
    assert allowance_of("somebody") is None


def listed(found: list[Command]) -> list[dict[str, Any]]:
    """As nft would: objects with handles, rules in its own words."""
    said = []
    for each in objects_of(form_of(one["add"] for one in found)):
        ((kind, body),) = each.items()
        values = {"packets": 7, "bytes": 700} if kind == "counter" else {}
        inner = [one["elem"] for one in bodies(found, "element") if _same(one, body)]
        said.append({kind: {**body, "handle": 9, **values, **({"elem": inner[0][::-1]} if inner else {})}})
    rules = bodies(found, "rule")
    return [
        {"metainfo": {"version": "1"}},
        *said,
        *({"rule": {**each, "handle": 3, "expr": []}} for each in rules),
    ]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["family"], one["name"]) == (other["family"], other["name"])


def test_what_is_listed_has_the_structure_of_the_commands() -> None:
    found = made(ALL)
    wanted = structure(form_of(each["add"] for each in found))
    assert difference(wanted, structure(form_of(listed(found)))) == ""


def test_form_survives_being_written_down() -> None:
    form = form_of(listed(made(ALL)))
    assert from_json(json.loads(json.dumps(to_json(form)))) == form


def _without(kind: str, **wanted: Any) -> list[Command]:
    def gone(each: Command) -> bool:
        body = each["add"].get(kind)
        return body is not None and all(body.get(key) == value for key, value in wanted.items())

    return [each for each in made(ALL) if not gone(each)]


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (_without("rule", chain="forward", family="inet"), "chain forward: 5 rules are missing"),
        (_without("rule", comment="from outside"), "chain forward: 1 rule is missing"),
        (_without("element", name="homes4"), "set homes4: 3 elements are missing"),
        (_without("table", family="bridge"), "bridge table masu_test is missing"),
        (_without("counter", family="inet", name="allow/open/any"), "counter allow/open/any is missing"),
        ([*made(ALL), made(ALL)[-1]], "bridge chain closed: 1 rule is too many"),
    ],
)
def test_difference_is_said_in_words(live: list[Command], said: str) -> None:
    wanted = structure(form_of(each["add"] for each in made(ALL)))
    assert difference(wanted, structure(form_of(each["add"] for each in live))) == said


def test_much_that_is_different_is_summed_up() -> None:
    wanted = structure(form_of(each["add"] for each in made(ALL)))
    live = structure(form_of(each["add"] for each in made(ALL) if "table" in each["add"]))
    assert difference(wanted, live).endswith(f" and {len(wanted) - 2 - 3} more")


def test_rules_in_another_order_are_seen() -> None:
    wanted = made(Firewall())
    other = [*wanted[:-2], wanted[-1], wanted[-2]]
    forms = [structure(form_of(each["add"] for each in one)) for one in (wanted, other)]
    assert difference(*forms) == "chain postrouting: the rules are in another order"


def test_clearance_of_what_is_wanted_empties_it_and_deletes_nothing() -> None:
    wanted = made(ALL)
    found = clearance(wanted, listed(wanted))
    assert all("flush" in each for each in found)
    assert len(found) == sum(len(bodies(wanted, kind)) for kind in ("chain", "set", "map"))


def test_clearance_of_nothing_is_nothing() -> None:
    assert clearance(made(ALL), []) == []


def test_clearance_deletes_what_is_not_wanted_in_an_order_that_the_kernel_takes() -> None:
    before, after = listed(made(ALL)), made(Firewall((FRONT,)))
    found = clearance(after, before)
    deleted = [next(iter(each["delete"])) for each in found if "delete" in each]
    assert deleted == sorted(deleted, key=["chain", "set", "map", "counter", "table"].index)
    assert {
        "delete": {"counter": {"family": "inet", "table": "masu_test", "name": "allow/back/web"}}
    } in found
    assert found[-1] == {"delete": {"table": {"family": "bridge", "name": "masu_test"}}}
    assert "flush" not in {next(iter(each)) for each in found[len(found) - len(deleted) :]}


@pytest.mark.parametrize(
    "other",
    [
        {"chain": {"name": "forward", "type": "filter", "hook": "forward", "prio": 5, "policy": "accept"}},
        {"chain": {"name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"name": "forward"}},
        {"set": {"name": "homes4", "type": "ipv4_addr", "flags": "interval"}},
        {"map": {"name": "homes4", "type": "ipv4_addr", "map": "verdict"}},
        {"chain": {"name": "mine"}},
        {"quota": {"name": "mine"}},
    ],
)
def test_clearance_deletes_what_is_of_another_sort(other: dict[str, Any]) -> None:
    ((kind, body),) = other.items()
    found = clearance(made(ALL), [{kind: {"family": "inet", "table": "masu_test", **body}}])
    assert {"delete": {kind: {"family": "inet", "table": "masu_test", "name": body["name"]}}} in found
