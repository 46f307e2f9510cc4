"""Runs every tests/cases/<aspect>/*.yaml of the aspects that are made of knobs, and replays every interruption.

A case: `layout` of the host, `section` of the spec, `live` files (absent: the group is not there yet), and
either the texts of the expected `steps` in order, or what the host `lacks`. For disks also `paths` → disks behind
each, `hardware`, files of the `root` group, and the `remarks`.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from controller.aspects import ASPECTS
from controller.aspects._base import Subject
from controller.errors import HostLacks
from controller.model.disks import Backing, Disk
from controller.model.status import HOST_LACKS
from controller.reconcile.plan import order
from tests.worlds import MemoryCgroups, MemoryDisks, facts

HERE = Path(__file__).parent
OF_KNOBS = {"cpu", "hugepages", "io", "memory", "pids"}
KNOB_ASPECTS = {each.name: each for each in ASPECTS if each.name in OF_KNOBS}
CASES = sorted(path for name in KNOB_ASPECTS for path in (HERE / name).glob("*.yaml"))
GROUP = "/masu/test/web"
SUBJECT = Subject("web", GROUP, pid=1, record=None, now_ms=0)


def _load(path: Path) -> dict[str, Any]:
    return {"id": f"{path.parent.name}/{path.stem}", "aspect": KNOB_ASPECTS[path.parent.name], **_yaml(path)}


def _yaml(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(path.read_text())
    return value


ALL = [_load(path) for path in CASES]
LACKING = [each for each in ALL if "lacks" in each and "steps" not in each]
PLANNED = [each for each in ALL if "steps" in each]
APPLIED = [each for each in PLANNED if "live" in each and not each.get("refused")]
REMARKED = [each for each in ALL if "remarks" in each]
MEMSW = [each for each in APPLIED if "memory.memsw.limit_in_bytes" in each["live"]]


def cases(chosen: list[dict[str, Any]]) -> Any:
    assert chosen, "a list of cases that is empty tests nothing"
    return pytest.mark.parametrize("case", chosen, ids=[each["id"] for each in chosen])


def _world(case: dict[str, Any]) -> Any:
    known = facts(
        case["layout"], without=tuple(case.get("without", ())), swap_limits=case.get("swapLimits", True)
    )
    cgroups = MemoryCgroups(known)
    for above in ("", "/masu", "/masu/test"):
        cgroups.fill(above, {"cgroup.subtree_control": case.get("switchedOn", "")})
    if "live" in case:
        cgroups.fill(GROUP, {file: str(text) for file, text in case["live"].items()})
    cgroups.fill("", {file: str(text) for file, text in case.get("root", {}).items()})
    paths = {path: _backing(each) for path, each in case.get("paths", {}).items()}
    disks = MemoryDisks(paths, tuple(Disk(**each) for each in case.get("hardware", ())))
    return SimpleNamespace(facts=known, cgroups=cgroups, disks=disks)


def _backing(written: dict[str, Any]) -> Backing:
    return Backing(**{**written, "disks": tuple(Disk(**each) for each in written.get("disks", ()))})


def _plan(case: dict[str, Any], world: Any) -> list[Any]:
    desired = case["aspect"].parse(case["section"], world.facts)
    if desired is None:
        return []
    observed = case["aspect"].observe(SUBJECT, world, desired)
    return list(order(case["aspect"].diff(SUBJECT, desired, observed)))


@cases(LACKING)
def test_what_the_host_lacks_is_named(case: dict[str, Any]) -> None:
    """By an error when nothing of the section can be done, by a condition when the rest of it can."""
    try:
        world = _world(case)
        said = case["aspect"].remarks(case["aspect"].parse(case["section"], world.facts), {})
        assert [each.type for each in said] == [HOST_LACKS]
        message = said[0].message
    except HostLacks as lack:
        message = str(lack)
    assert re.search(case["lacks"], message)


@cases(PLANNED)
def test_case_yields_exactly_the_expected_steps(case: dict[str, Any]) -> None:
    steps = _plan(case, _world(case))
    assert [step.text for step in steps] == case["steps"]
    assert [step.risk for step in steps if step.risk] == case.get("risks", [])


@cases(REMARKED)
def test_case_yields_exactly_the_expected_remarks(case: dict[str, Any]) -> None:
    world = _world(case)
    desired = case["aspect"].parse(case["section"], world.facts)
    observed = case["aspect"].observe(SUBJECT, world, desired)
    said = [
        f"{each.type} {each.reason}: {each.message}" for each in case["aspect"].remarks(desired, observed)
    ]
    assert said == case["remarks"]


@cases(APPLIED)
def test_applying_converges_and_twice_is_once(case: dict[str, Any]) -> None:
    world = _world(case)
    for step in _plan(case, world):
        step.apply(world)
    assert _plan(case, world) == []


@cases(APPLIED)
def test_interrupted_anywhere_it_resumes_to_the_same_state(case: dict[str, Any]) -> None:
    whole = _plan(case, _world(case))
    for count in range(len(whole) + 1):
        world = _world(case)
        for step in whole[:count]:
            step.apply(world)
        rest = _plan(case, world)
        assert _keys(rest) >= _keys(whole[count:]) - {"cgroup.hugetlb"}, "resuming does what is left"
        for step in rest:
            step.apply(world)
        assert _plan(case, world) == []


def _keys(steps: list[Any]) -> set[str]:
    return {step.change[0] for step in steps}


@cases(MEMSW)
def test_v1_memory_stays_below_memsw_at_every_moment(case: dict[str, Any]) -> None:
    """The kernel refuses a memory limit above memory+swap: the order of steps must never ask for it."""
    world = _world(case)
    for step in _plan(case, world):
        step.apply(world)
        memory = int(world.cgroups.read(GROUP, "memory", "memory.limit_in_bytes") or 0)
        both = int(world.cgroups.read(GROUP, "memory", "memory.memsw.limit_in_bytes") or 0)
        assert memory <= both
