"""What only cgroup v2 has: memory.high that slows down and tells, oom.group, and huge pages in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, knob, until

EAT = "tail /dev/zero"

pytestmark = pytest.mark.on_v2


def _events(masu: Masu, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in masu.events() if each["type"] in kinds]


def test_high_slows_down_and_tells_before_max_kills(masu: Masu) -> None:
    masu.write(
        container(
            process={"args": ["/bin/sh", "-c", f"{EAT}; exec sleep 100000"]},
            limits={"memory": {"high": "16Mi", "max": "24Mi", "swap": 0}},
            notify=[
                {"on": "memory.high", "exec": ["/bin/touch", "/data/told"], "timeout": "60s"},
                {"on": "memory.pressure", "some": "50ms/1s"},
                {"on": "oom"},
            ],
        )
    )
    masu.start()
    masu.running()
    until(lambda: _events(masu, "MemoryHigh"), lambda: f"told: {masu.events()}")
    until(lambda: _events(masu, "MemoryPressure"), lambda: f"told: {masu.events()}")
    until(lambda: _events(masu, "Notified"), lambda: f"told inside: {masu.events()}")
    assert masu.status()["counters"]["memoryHighEvents"] > 0
    assert not [each["reason"] for each in masu.status()["conditions"]], "nothing of it is less than it says"
    limits = {"memory": {"high": "max", "max": "24Mi", "swap": 0}}
    eater = {"args": ["/bin/sh", "-c", f"{EAT}; exec sleep 100000"]}
    masu.write(container(process=eater, limits=limits))
    until(lambda: _events(masu, "OomKilled"), lambda: f"killed in the end: {masu.events()}")
    kinds = [each["type"] for each in _events(masu, "MemoryHigh", "OomKilled")]
    assert kinds.index("MemoryHigh") < kinds.index("OomKilled")


def test_a_group_that_runs_out_of_memory_ends_as_one(masu: Masu) -> None:
    masu.write(
        container(
            process={"args": ["/bin/sh", "-c", f"sleep 1000 & sleep 1000 & {EAT}; exec sleep 1000"]},
            limits={"memory": {"max": "16Mi", "swap": 0, "oomGroup": True}},
            restart={"policy": "never"},
        )
    )
    masu.start()
    exited = until(lambda: _events(masu, "Exited"), lambda: f"ended: {masu.events()}")
    assert exited[0]["message"].startswith("OOMKilled")
    killed = until(lambda: _events(masu, "OomKilled"), lambda: f"told: {masu.events()}")
    assert "ended 4 processes" in killed[0]["message"]
    assert knob(masu, "web", "memory/", "memory.oom.group").read_text().strip() == "1"


def test_huge_pages_cannot_be_reserved_beyond_the_limit(masu: Masu) -> None:
    """Through hugetlbfs, in the container's own cgroup: four pages there, two allowed."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    pool.write_text("4")
    try:
        masu.write(container(limits={"hugepages": {"2Mi": "4Mi"}}))
        assert masu.apply().returncode == 0
        group = knob(masu, "web", "hugetlb/", "cgroup.procs")
        script = f"""
import mmap
open({str(group)!r}, "w").write("0")
mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
try:
    mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
except OSError:
    print("refused")
"""

        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.strip() == "refused", done.stderr
    finally:
        pool.write_text(before)
