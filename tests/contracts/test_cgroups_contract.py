"""What every driver of the Cgroups port must do: the one in memory, and the real one on this machine's kernel."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.errors import KnobRefused, StepFailed
from controller.host import facts as host_facts
from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import CgroupTree
from controller.host.disks import HostDisks
from controller.model.facts import CORE, Facts
from controller.model.keyed import Cell
from controller.steps.throttle import unthrottle
from tests.worlds import MemoryCgroups, facts

pytestmark = pytest.mark.on_v2


@pytest.fixture(params=["memory-v1", "memory-v2", "memory-hybrid", "kernel"])
def world(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Facts, str]]:
    """(driver, facts, the name of a group that is nobody else's)."""
    kind, _, layout = request.param.partition("-")
    known = facts(layout) if kind == "memory" else host_facts.look(None)
    driver = MemoryCgroups(known) if kind == "memory" else CgroupTree(Homes(known))
    group = f"/masu/t-{secrets.token_hex(4)}/web"
    try:
        yield driver, known, group
    finally:
        driver.remove(group, lambda: None)


def make(driver: Any, known: Facts, group: str) -> None:
    driver.place(group, {each.mount: "" for each in known.hierarchies}, 0)


def test_created_everywhere_and_removed_everywhere(world: tuple[Any, Facts, str]) -> None:
    driver, known, group = world
    parent = group.rpartition("/")[0]
    assert driver.homes(group) == {}
    make(driver, known, group)
    make(driver, known, group)
    assert driver.homes(group) == {each.mount: (group,) for each in known.hierarchies}
    assert driver.children(parent) == {"web"}
    driver.remove(group, lambda: None)
    driver.remove(group, lambda: None)
    assert driver.homes(group) == {}
    assert driver.children(parent) == frozenset()


def test_removal_evicts_whoever_is_inside_and_below() -> None:
    driver = CgroupTree(Homes(host_facts.look(None)))
    parent = f"/masu/t-{secrets.token_hex(4)}"
    group, below = f"{parent}/web", f"{parent}/web/below"
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            make(driver, host_facts.look(None), below)
            driver.enter(below, process.pid)
            evicted = []
            driver.remove(group, lambda: (evicted.append(process.kill()), process.wait()))  # type: ignore[func-returns-value]
            assert evicted
            assert driver.homes(group) == {}
        finally:
            process.kill()
            driver.remove(group, lambda: None)


def test_what_is_written_is_read(world: tuple[Any, Facts, str]) -> None:
    driver, known, group = world
    make(driver, known, group)
    driver.write(group, "pids", "pids.max", "17")
    assert driver.read(group, "pids", "pids.max") == "17"


def test_memory_without_a_limit_reads_as_the_aspect_expects(world: tuple[Any, Facts, str]) -> None:
    driver, known, group = world
    make(driver, known, group)
    file = "memory.max" if known.version("memory") == 2 else "memory.limit_in_bytes"
    driver.write(group, "memory", file, "67108864")
    driver.write(group, "memory", file, "max" if known.version("memory") == 2 else "-1")
    assert driver.read(group, "memory", file) in {"max", "9223372036854771712"}


def test_absent_reads_as_none_and_writing_it_is_refused_with_everything(
    world: tuple[Any, Facts, str],
) -> None:
    driver, _, group = world
    assert driver.read(group, "pids", "pids.max") is None
    assert driver.read(group, "no such subsystem", "x") is None
    with pytest.raises(KnobRefused, match=r"'17' to .*/web/pids.max: ENOENT"):
        driver.write(group, "pids", "pids.max", "17")


def test_a_cell_is_written_without_its_neighbours_and_unset_cells_are_not_shown(
    world: tuple[Any, Facts, str],
) -> None:
    driver, known, group = world
    make(driver, known, group)
    number = HostDisks("/sys").hardware()[0].number
    on_v2 = known.version("io") == 2
    subsystem, none = ("io", "max") if on_v2 else ("blkio", "0")
    files = ("blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device")
    pairs = [(Cell(number), file) for file in files]
    if on_v2:
        pairs = [(Cell(number, field), "io.max") for field in ("rbps", "wiops")]
    for cell, file in pairs:
        driver.write(group, subsystem, file, cell.line("4096"))
    for cell, file in pairs:
        assert cell.find(driver.read(group, subsystem, file)) == "4096"
        driver.write(group, subsystem, file, cell.line(none))
        assert cell.find(driver.read(group, subsystem, file)) == "max"
    assert {driver.read(group, subsystem, file) for _, file in pairs} == {""}
    for cell, file in pairs:
        driver.write(group, subsystem, file, cell.line("4096"))
    host: Any = SimpleNamespace(cgroups=driver)
    unthrottle(host, group)
    assert {driver.read(group, subsystem, file) for _, file in pairs} == {""}


def test_a_process_enters_everywhere(world: tuple[Any, Facts, str]) -> None:
    driver, known, group = world
    make(driver, known, group)
    process = subprocess.Popen(["sleep", "60"])
    try:
        driver.enter(group, process.pid)
        subsystems = [CORE if not each.subsystems else each.subsystems[0] for each in known.hierarchies]
        for subsystem in subsystems:
            assert str(process.pid) in (driver.read(group, subsystem, "cgroup.procs") or "").split()
    finally:
        process.kill()
        process.wait()


def test_moves_between_budgets_with_everybody_and_is_found_there() -> None:
    """Half a move, as somebody who was killed leaves it, is ended by the next."""
    known = host_facts.look(None)
    group = f"/masu/t-{secrets.token_hex(4)}/web"
    root = group.rpartition("/")[0]
    mounts = [each.mount for each in known.hierarchies]
    driver = CgroupTree(Homes(known))
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    pids = {each.pid for each in processes}
    try:
        make(driver, known, group)
        for pid in pids:
            driver.enter(group, pid)
        driver.write(group, "pids", "pids.max", "17")
        driver.place(group, dict.fromkeys(mounts, "b"), processes[0].pid)
        assert set(driver.homes(group).values()) == {(f"{root}/@b/web",)}
        assert CgroupTree(Homes(known)).homes(group) == driver.homes(group), "whoever looks for it finds it"
        assert _members(driver, group, known) == pids
        assert driver.read(group, "pids", "pids.max") == "17", "nobody is without limits for a moment"
        half = CgroupTree(Homes(known))
        half.place(f"{root}/@c/web", dict.fromkeys(mounts, ""), 0)
        half.enter(f"{root}/@c/web", processes[1].pid)
        driver.place(f"{root}/@c", dict.fromkeys(mounts, ""), 0)
        assert {len(each) for each in driver.homes(group).values()} == {2}, "half a move can be seen"
        driver.place(group, dict.fromkeys(mounts, "c"), processes[0].pid)
        assert set(driver.homes(group).values()) == {(f"{root}/@c/web",)}
        assert _members(driver, group, known) == pids
        driver.place(group, dict.fromkeys(mounts, ""), processes[0].pid)
        assert set(driver.homes(group).values()) == {(group,)}
    finally:
        for each in processes:
            each.kill()
            each.wait()
        for each in (group, f"{root}/@b", f"{root}/@c"):
            driver.remove(each, lambda: None)
    assert driver.children(root) == frozenset()


def _members(driver: Any, group: str, known: Facts) -> set[int]:
    subsystems = [CORE if not each.subsystems else each.subsystems[0] for each in known.hierarchies]
    found = {driver.read(group, each, "cgroup.procs") or "" for each in subsystems}
    assert len({frozenset(each.split()) for each in found}) == 1, "the same in every hierarchy"
    return set(map(int, found.pop().split()))


def test_a_budget_in_which_something_failed_is_known_all_the_same() -> None:
    known = host_facts.look(None)
    core = known.hierarchy(CORE)
    if core is None:
        pytest.skip("needs a cgroup2 mount")
    group = f"/masu/t-{secrets.token_hex(4)}/web"
    root = group.rpartition("/")[0]
    driver = CgroupTree(Homes(known))
    try:
        driver.place(f"{root}/other", {core.mount: ""}, 0)
        assert driver.homes(group) == {}
        most = Path(f"{core.mount}{root}/cgroup.max.descendants")
        most.write_text("2")
        with pytest.raises(StepFailed, match="placing cgroup"):
            driver.place(group, {core.mount: "b"}, 0)
        most.write_text("max")
        left = Path(f"{core.mount}{root}/@b/web")
        left.mkdir()
        driver.remove(group, lambda: None)
        assert not left.exists()
    finally:
        for each in (f"{root}/other", group, f"{root}/@b"):
            driver.remove(each, lambda: None)


def test_budgets_made_at_one_time_are_all_known() -> None:
    """By whoever has listed the directory last."""
    known = host_facts.look(None)
    root = f"/masu/t-{secrets.token_hex(4)}"
    mounts = {each.mount: "" for each in known.hierarchies}
    driver = CgroupTree(Homes(known))
    budgets = [f"{root}/@{number}" for number in range(16)]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: driver.place(each, mounts, 0), budgets))
            list(pool.map(lambda each: driver.place(f"{each}/web", mounts, 0), budgets))
        assert {len(each) for each in driver.homes(f"{root}/web").values()} == {len(budgets)}
    finally:
        for each in (f"{root}/web", *budgets):
            driver.remove(each, lambda: None)
    assert driver.children(root) == frozenset()
