"""What has to be guaranteed above, so that what is guaranteed below holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from controller.aspects._base import Subject
from controller.aspects.guarantees import Guarantees
from tests.worlds import MemoryCgroups, facts

ROOT = "/masu/test"
SUBJECT = Subject("instance/test", ROOT, 0, None, 0)
V2 = facts("v2")
SECTION: dict[str, Any] = {
    "members": [
        ("", {"low": "64Mi", "max": "1Gi"}),
        ("a", {"low": "32Mi"}),
        ("b", {"low": "8Mi", "min": "4097"}),
    ],
    "budgets": {"b": {"low": "100Mi"}},
}
FILES = {"memory.low": "0", "memory.min": "0"}


def world(*groups: str, **others: str) -> Any:
    cgroups = MemoryCgroups(V2)
    for each in groups:
        cgroups.fill(each, FILES)
    for name, low in others.items():
        cgroups.fill(f"/masu/{name}", {**FILES, "memory.low": low})
    return SimpleNamespace(facts=V2, cgroups=cgroups)


def steps(host: Any, section: dict[str, Any] = SECTION) -> list[Any]:
    desired = Guarantees().parse(section, V2)
    assert desired is not None
    return list(Guarantees().diff(SUBJECT, desired, Guarantees().observe(SUBJECT, host, desired)))


def test_the_sums_are_written_above_and_twice_is_once() -> None:
    """A budget's own word counts, not what its members say; those without one get their members' sum."""
    host = world("/masu", ROOT, f"{ROOT}/@a", f"{ROOT}/@b", other=str(1 << 20))
    for each in steps(host):
        each.apply(host)
    read = host.cgroups.read
    assert read(f"{ROOT}/@a", "memory", "memory.low") == str(32 << 20)
    assert read(f"{ROOT}/@b", "memory", "memory.low") == "0", "it is the group's own"
    assert read(f"{ROOT}/@b", "memory", "memory.min") == "4096"
    assert read(ROOT, "memory", "memory.low") == str(196 << 20)
    assert read("/masu", "memory", "memory.low") == str(197 << 20), "with other instances"
    assert steps(host) == []


def test_nothing_guaranteed_is_nothing_written_and_what_was_goes() -> None:
    none: dict[str, Any] = {"members": [("", {"max": "1Gi"})], "budgets": {}}
    host = world("/masu", ROOT)
    assert steps(host, none) == []
    assert steps(world(), none) == [], "nothing is there"
    host.cgroups.write(ROOT, "memory", "memory.low", "4096")
    assert [each.text for each in steps(host, none)] == [
        "set memory.low of /masu/test (memory.low): 4096 → 0"
    ]


def test_all_of_it_and_groups_that_are_not_there_yet() -> None:
    everything: dict[str, Any] = {"members": [("", {"low": "max"})], "budgets": {}}
    host = world("/masu", ROOT)
    for each in steps(host, everything):
        each.apply(host)
    assert host.cgroups.read("/masu", "memory", "memory.low") == "max"
    assert steps(world(), everything) == [], "whoever is placed there has it looked at again"


def test_cgroup_v1_has_no_guarantees() -> None:
    assert Guarantees().parse(SECTION, facts("hybrid")) is None
