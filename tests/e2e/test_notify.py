"""Telling user space before it hurts, and counting what the kernel did: on the real kernel, with real want."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, cgroup_mounts, container, knob, set_knob, until

PROGRAMS = {"path": "/opt/masu/rootfs/programs"}
EAT = "tail /dev/zero"
"""busybox keeps all of a line that never ends."""


def events(masu: Masu, *kinds: str, name: str = "web") -> list[dict[str, Any]]:
    """Read where `masu events` reads them: that it prints them is tested elsewhere, and costs a process.

    Not too often: in the virtual machine whoever asks takes the cpu from whoever is to answer.
    """
    time.sleep(0.05)
    path = Path(f"/run/masu/{masu.instance}/events.jsonl")
    every = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [each for each in every if each["type"] in kinds and each.get("container") == name]


def told(masu: Masu, kind: str, name: str = "web") -> dict[str, Any]:
    found: list[dict[str, Any]] = until(
        lambda: events(masu, kind, name=name), lambda: f"{kind}: {masu.log()[-2000:]}", 60
    )
    return found[0]


def _inside(masu: Masu, script: str) -> subprocess.CompletedProcess[str]:
    return masu.run("exec", "web", "--", "/bin/sh", "-c", script)


def _conditions(masu: Masu) -> dict[str, str]:
    return {each["reason"]: each["message"] for each in masu.status()["conditions"]}


def test_pressure_is_told_inside_before_memory_runs_out(masu: Masu) -> None:
    """Files that do not fit are read again and again; then memory that cannot be given back runs out."""
    load = (
        "cd /tmp; stress-ng --quiet --mmap 1 --mmap-file --mmap-bytes 96M --timeout 30 &"
        " while [ ! -e /shed ]; do sleep 0.1; done; kill $!;"
        " stress-ng --quiet --vm 1 --vm-bytes 128M --vm-keep --timeout 2; exec sleep 100000"
    )
    entry = {"on": "memory.pressure", "some": "20ms/1s", "exec": ["/bin/sh", "-c", "date > /shed; echo shed"]}
    masu.write(
        container(
            rootfs=PROGRAMS,
            process={"args": ["/bin/sh", "-c", load]},
            limits={"memory": {"max": "48Mi"}},
            notify=[entry],
        )
    )
    masu.start()
    masu.running()
    assert "in use of 48.0Mi" in told(masu, "MemoryPressure")["message"]
    told(masu, "OomKilled")
    assert [each["type"] for each in events(masu, "MemoryPressure", "Notified", "OomKilled")][:3] == [
        "MemoryPressure",
        "Notified",
        "OomKilled",
    ]
    assert masu.status()["counters"]["oomKills"] >= 1
    assert _inside(masu, "cat /shed").stdout.strip()


@pytest.mark.on_v2
def test_kills_are_counted_and_outlive_restart_group_and_daemon(masu: Masu) -> None:
    """The init survives the first, which is told within a second; nothing is lost afterwards."""
    masu.write(
        container(
            process={"args": ["/bin/sh", "-c", f"{EAT}; exec sleep 100000"]},
            limits={"memory": {"max": "16Mi", "swap": "0"}},
        ),
        container("other"),
    )
    masu.start("--resync", "2s")
    pid = masu.running()
    assert "1 so far" in told(masu, "OomKilled")["message"]
    assert masu.pid() == pid, "whoever was not killed goes on"
    os.kill(pid, 9)
    pid = masu.restarted(pid)
    until(lambda: masu.status()["counters"]["oomKills"] == 2, f"counted on: {masu.status()}")
    until(lambda: len(events(masu, "OomKilled")) == 2, f"told again: {masu.log()[-1500:]}")
    memory = knob(masu, "web", "memory/memory.oom_control", "memory.events").parent
    for mount in cgroup_mounts():
        (Path(mount) / "cgroup.procs").write_text(str(pid))
    until(lambda: not (memory / "cgroup.procs").read_text(), "nobody is in it")
    before = memory.stat().st_ino
    memory.rmdir()
    until(lambda: memory.exists() and memory.stat().st_ino != before, "the group is made anew")
    assert masu.status()["counters"]["oomKills"] == 2
    masu.stop()
    assert _inside(masu, EAT).returncode != 0
    kills = masu.status()["counters"]["oomKills"]
    assert kills > 2, "also what eats as a guest"
    masu.start()
    until(lambda: len(events(masu, "OomKilled")) == 3, f"told late: {masu.log()[-1500:]}")
    assert masu.status()["counters"]["oomKills"] == kills
    masu.write(container("other"))
    assert told(masu, "Counted")["message"].startswith(f"{kills} killed out of memory")
    until(lambda: not masu.traces("web"), f"gone: {masu.traces('web')}")


@pytest.mark.on_v2
def test_a_command_that_hangs_is_killed_with_all_it_has_started(either: Masu) -> None:
    hang = ["/bin/sh", "-c", "echo waiting; sleep 77 & sleep 77"]
    either.write(
        container(
            process={"args": ["/bin/sh", "-c", "while :; do sleep 1; done"]},
            limits={"memory": {"max": "16Mi", "swap": "0"}},
            notify=[{"on": "oom", "exec": hang, "timeout": "1s"}],
        )
    )
    either.start()
    pid = either.running()
    _inside(either, EAT)
    message = told(either, "NotifyFailed")["message"]
    assert message.endswith("killed after 1s: waiting"), message
    until(lambda: not [each for each in either.processes() if _runs(each, "77")], "nobody of it is left")
    assert either.pid() == pid
    assert not list(Path(f"/run/masu/{either.instance}/bundles/web").glob("exec-*"))


def _runs(pid: int, argument: str) -> bool:
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


@pytest.mark.on_v2
def test_a_hog_under_its_limit_waits_for_a_cpu_and_that_changes_live(masu: Masu) -> None:
    """Not before it is asked for, not while it is frozen, and without a restart."""
    limits = {"cpu": {"max": "0.2"}}
    hog = {"args": ["/bin/sh", "-c", "while :; do :; done"]}
    masu.write(container(process=hog, limits=limits))
    masu.start()
    pid = masu.running()
    command = {"exec": ["/bin/touch", "/data/told"], "timeout": "30s"}  # it has to wait for a cpu as well
    entry = {"on": "cpu.pressure", "some": "100ms/1s", "every": "1s", **command}
    masu.write(container(process=hog, limits=limits, notify=[entry]))
    assert "stalled" in told(masu, "CpuPressure")["message"]
    told(masu, "Notified")
    assert masu.status()["counters"]["throttledSeconds"] > 0
    masu.write(container(process=hog, limits=limits, notify=[entry], state="frozen"))
    until(lambda: masu.status()["state"] == "frozen", "frozen")
    time.sleep(1.5)  # what was on its way
    before = len(events(masu, "CpuPressure"))
    time.sleep(2.5)
    assert len(events(masu, "CpuPressure")) == before, "a frozen container is told nothing"
    assert masu.pid() == pid


def test_v1_levels_and_thresholds(masu: Masu) -> None:
    """Without the pressure files of cgroup2; on v2 the one is lacking, and the other is a counter."""
    masu.write(
        container(
            limits={"memory": {"max": "48Mi", "high": "24Mi"}},
            notify=[{"on": "memory.pressure", "level": "low"}, {"on": "memory.high"}],
        )
    )
    masu.start()
    masu.running()
    assert "CoarseMemoryHigh" in _conditions(masu)
    _inside(masu, EAT)
    assert "in use of 48.0Mi" in told(masu, "MemoryHigh")["message"]
    assert "level low" in told(masu, "MemoryPressure")["message"]
    told(masu, "OomKilled")
    assert masu.status()["counters"]["memoryHighEvents"] is None


def test_v1_limits_of_memory_and_swap_shrink_and_grow_together(masu: Masu) -> None:
    """The kernel refuses memory above the sum at every moment: each way from each to each."""
    sizes = [
        ("64Mi", "64Mi"),
        ("32Mi", "0"),
        ("128Mi", "32Mi"),
        ("150Mi", "0"),
        ("32Mi", "256Mi"),
        ("max", "max"),
    ]
    steps = [*sizes, *reversed(sizes), sizes[0], sizes[2], sizes[4], sizes[1], sizes[3], sizes[0]]
    both = knob(masu, "web", "memory/memory.memsw.limit_in_bytes", "")
    masu.write(container(limits={"memory": {"max": "16Mi", "swap": "16Mi"}}))
    masu.start()
    masu.running()
    for size, swap in steps:
        masu.write(container(limits={"memory": {"max": size, "swap": swap}}))
        wanted = 9223372036854771712 if size == "max" else _mib(size) + _mib(swap)
        until(lambda w=wanted: int(both.read_text()) == w, f"{size} and {swap}: {masu.log()[-500:]}")  # type: ignore[misc]
    assert "EINVAL" not in masu.log()
    assert "EBUSY" not in masu.log()


def _mib(text: str) -> int:
    return int(text.removesuffix("Mi")) << 20


@pytest.mark.on_v2_long
def test_descriptors_do_not_leak_when_containers_come_and_go(masu: Masu) -> None:
    notify = [{"on": "cpu.pressure", "some": "500ms/1s"}, {"on": "memory.high"}, {"on": "oom"}]
    limits = {"memory": {"max": "64Mi", "high": "32Mi"}}
    few = [container(f"n{number}", limits=limits, notify=notify) for number in range(3)]
    masu.write(container())
    masu.start("--allow-removals")
    masu.running()
    fds = Path(f"/proc/{masu.daemon.pid}/fd") if masu.daemon else Path()
    counts = []
    for _ in range(3):
        masu.write(container(), *few)
        for each in few:
            masu.running(each["metadata"]["name"])
        until(lambda: len(events(masu, "Started", name="n2")) == len(counts) + 1, "all are watched")
        masu.write(container())
        until(lambda: not masu.traces("n?"), f"gone: {masu.traces('n?')}")
        time.sleep(0.2)
        counts.append(len(list(fds.iterdir())))
    assert counts[2] <= counts[0], counts


@pytest.mark.on_v2
def test_huge_pages_are_limited_used_and_reserved(masu: Masu) -> None:
    masu.write(container(limits={"hugepages": {"2Mi": "5Mi"}}))
    masu.start("--resync", "1s")
    masu.running()
    directory = next(
        Path(mount) / "masu" / masu.instance / "web"
        for mount in cgroup_mounts()
        if list((Path(mount) / "masu" / masu.instance / "web").glob("hugetlb.2MB.*"))
    )
    files = [
        each for each in directory.glob("hugetlb.2MB.*") if each.name.endswith(("max", "limit_in_bytes"))
    ]
    files = [each for each in files if "usage" not in each.name]
    assert len(files) == 2
    for each in files:
        assert each.read_text().strip() == str(4 << 20)
        set_knob(each, str(8 << 20))
        until(lambda e=each: e.read_text().strip() == str(4 << 20), f"{each} repaired")  # type: ignore[misc]
    masu.write(container(limits={"hugepages": {"2Mi": "5Mi", "32Mi": "64Mi"}}))
    until(lambda: "NoHugepages32Mi" in _conditions(masu), "a size that there is not")
    assert "it has 2Mi, 1Gi" in _conditions(masu)["NoHugepages32Mi"]
