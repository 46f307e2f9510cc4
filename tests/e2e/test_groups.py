"""Budgets of cpu, memory and processes that several containers share, on every layout and with both runtimes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from controller.host.cgroups import bpf
from tests.e2e.harness import Masu, cgroup_mounts, container, growth, knob, network, set_knob, until

BUSY = {"args": ["/bin/sh", "-c", "while :; do :; done"], "stop": {"grace": "0s"}}


def group(name: str, **budgets: Any) -> dict[str, Any]:
    return {"apiVersion": "masu/v1", "kind": "Group", "metadata": {"name": name}, "spec": budgets}


def homes(masu: Masu, pid: int) -> set[str]:
    """Where the process is below the instance's cgroup, in all hierarchies in which masu has one."""
    prefix = f"/masu/{masu.instance}/"
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {line.split(":", 2)[2] for line in lines if prefix in line}
    return {path.removeprefix(prefix) for path in paths}


def home(masu: Masu, pid: int, subsystem: str) -> str:
    """The same in the hierarchy of one subsystem."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {name: path for _, names, path in lines for name in (names.split(",") if names else [""])}
    return found.get(subsystem, found.get("", "")).removeprefix(f"/masu/{masu.instance}/")


def pids_max(masu: Masu, name: str) -> Path:
    return knob(masu, name, "pids/pids.max", "pids.max")


@pytest.mark.on_v2
def test_members_are_born_in_the_budget_and_limited_by_it(either: Masu) -> None:
    """Two busy members get half a cpu together; what each has for itself holds inside of that."""
    masu = either
    masu.write(
        group("batch", cpu={"max": "0.5"}, pids={"max": 40}),
        container("one", process=BUSY, group="batch", limits={"pids": {"max": 9}}),
        container("two", process=BUSY, group="batch"),
        container("free"),
    )
    masu.start()
    pids = [masu.running("one"), masu.running("two")]
    assert [home(masu, each, "cpu") for each in pids] == ["@batch/one", "@batch/two"]
    assert "@" not in str(homes(masu, masu.running("free")))
    until(lambda: masu.status("one").get("converged"), "one has converged")
    assert pids_max(masu, "@batch").read_text() == "40\n"
    assert pids_max(masu, "@batch/one").read_text() == "9\n"
    share = growth(lambda: sum(map(_cpu_s, pids)), 2)
    assert share < 0.6, f"{share:.2f} cpus are more than the group has"
    done = masu.run("exec", "one", "--", "/bin/cat", "/proc/self/cgroup")
    assert done.returncode == 0, done.stderr


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


@pytest.mark.on_v2
def test_a_container_moves_between_budgets_with_all_its_processes_and_is_not_restarted(masu: Masu) -> None:
    script = ["/bin/sh", "-c", "sleep 100000 & sleep 100001 & wait"]
    budgets = (group("a", pids={"max": 30}), group("b", pids={"max": 31}))

    def write(where: str) -> None:
        chosen = {"group": where} if where else {}
        masu.write(*budgets, container(process={"args": script}, limits={"pids": {"max": 7}}, **chosen))

    write("a")
    masu.start()
    pid = masu.running()
    until(lambda: len(masu.processes()) == 3, "three processes")
    before = masu.processes()
    for where in ("b", "", "a"):
        write(where)
        place = f"@{where}/web" if where else "web"
        until(lambda place=place: home(masu, pid, "pids") == place, f"in {place}")
        until(lambda: masu.status().get("converged"), masu.log)
        assert {home(masu, each, "pids") for each in before} == {place}
        assert pids_max(masu, place).read_text() == "7\n", "its own limit came along"
        left = [
            each for mount in cgroup_mounts() for each in Path(mount).glob(f"masu/{masu.instance}/@*/web")
        ]
        assert all(f"@{where}/" in str(each) for each in left), left
    assert (masu.pid(), masu.processes()) == (pid, before), "nobody was started anew"
    assert any(each["key"] == "group" for each in masu.events() if each["type"] == "Changed")


@pytest.mark.on_v2
def test_a_budget_is_repaired_edited_and_removed_like_everything_else(masu: Masu) -> None:
    masu.write(group("batch", memory={"max": "64Mi"}), container(group="batch"))
    masu.start()
    pid = masu.running()
    file = knob(masu, "@batch", "memory/memory.limit_in_bytes", "memory.max")
    assert file.read_text() == "67108864\n"
    set_knob(file, "99999744")
    until(lambda: file.read_text() == "67108864\n", "repaired")
    masu.write(group("batch", memory={"max": "96Mi"}), container(group="batch"))
    until(lambda: file.read_text() == "100663296\n", "edited")
    masu.write(container(), file="web.yaml")
    until(lambda: not file.exists(), lambda: "the budget is gone with its last member: " + masu.log())
    until(lambda: masu.status().get("converged"), "converged")
    assert masu.pid() == pid


def test_cpu_is_shared_with_one_and_bandwidth_with_another(networked: Any) -> None:
    """A and B share cpu while B and C share a network's budget."""
    masu = networked
    on = [{"network": "front"}]
    masu.write(
        network("front", subnets=["10.88.0.0/24"]),
        group("cpus", cpu={"max": "0.5"}),
        group("wire", network={"egress": {"max": "50Mbit"}}),
        container("a", group="cpus"),
        container("b", networks=on, group={"cpu": "cpus", "network": "wire"}),
        container("c", networks=on, group="wire"),
    )
    assert masu.apply().returncode == 0
    assert [home(masu, masu.pid(each), "cpu") for each in "abc"] == ["@cpus/a", "@cpus/b", "c"]
    funnels = [
        each for each in masu.ip_json("", "link") if "ifb" in json.dumps(each) or "mo" in each["ifname"]
    ]
    assert funnels, "b and c send through one funnel"
    assert masu.plan()["changes"] == []
    assert masu.run("down", "--all").returncode == 0


def test_what_one_hierarchy_cannot_express_is_a_spec_error(masu: Masu) -> None:
    """On hybrid and v1 each subsystem has its own group; on v2 the file is rejected."""
    masu.write(
        group("a", cpu={"max": "0.5"}),
        group("b", memory={"max": "64Mi"}),
        container(group={"cpu": "a", "memory": "b"}),
    )
    done = masu.apply()
    pure_v2 = len(cgroup_mounts()) == 1
    if pure_v2:
        assert done.returncode == 3
        assert "cgroup v2 has one hierarchy" in masu.run("status").stdout
        return
    assert done.returncode == 0, done.stderr
    pid = masu.pid()
    assert (home(masu, pid, "cpu"), home(masu, pid, "memory"), home(masu, pid, "pids")) == (
        "@a/web",
        "@b/web",
        "web",
    )


@pytest.mark.on_v2
def test_guaranteed_memory_is_guaranteed_above_too(masu: Masu) -> None:
    """cgroup v2 alone has guarantees, and they hold no further than those of the groups above."""
    if len(cgroup_mounts()) > 1:
        masu.write(container(limits={"memory": {"low": "8Mi"}}))
        assert masu.apply().returncode == 5
        return
    masu.write(
        group("batch", cpu={"max": "0.5"}),
        container("one", limits={"memory": {"low": "8Mi"}}),
        container("two", limits={"memory": {"low": "4Mi", "min": "2Mi"}}, group="batch"),
    )
    assert masu.apply().returncode == 0
    top = Path("/sys/fs/cgroup/masu") / masu.instance
    assert (top / "memory.low").read_text() == f"{12 << 20}\n"
    assert (top / "memory.min").read_text() == f"{2 << 20}\n"
    assert (top / "@batch" / "memory.low").read_text() == f"{4 << 20}\n"
    assert int((top.parent / "memory.low").read_text()) >= 12 << 20
    assert masu.plan()["changes"] == []


@pytest.mark.on_v2
def test_killed_right_after_a_move_nobody_is_without_limits_or_device_rules(masu: Masu) -> None:
    """What held where it came from holds where it is, for as long as masu stays away; frozen stays frozen."""
    spec: dict[str, Any] = {"limits": {"pids": {"max": 7}}, "state": "frozen"}
    masu.write(group("a", pids={"max": 30}), container(**spec))
    assert masu.apply().returncode == 0
    masu.write(group("a", pids={"max": 30}), container(**spec, group="a"))
    assert masu.apply(env={"MASU_FAIL_AT": "MoveCgroup+:1"}).returncode == -signal.SIGKILL
    assert pids_max(masu, "@a/web").read_text() == "7\n"
    if len(cgroup_mounts()) == 1:
        place = f"/sys/fs/cgroup/masu/{masu.instance}/@a/web"
        assert Path(place, "cgroup.freeze").read_text() == "1\n"
        cgroup = os.open(place, os.O_RDONLY)
        assert len(bpf.attached(cgroup)) == 1
        os.close(cgroup)
    assert masu.apply().returncode == 0
    assert masu.plan()["changes"] == []
