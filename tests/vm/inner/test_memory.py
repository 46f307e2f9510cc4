"""What only cgroup v2 has: memory.high that slows down and tells, oom.group, and huge pages in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, container, knob, until
from tests.e2e.test_notify import EAT, events, told

pytestmark = pytest.mark.on_v2

RESERVE = """
import mmap, sys
open(sys.argv[1], "w").write("0")
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
kept = mmap.mmap(-1, 4 << 20, flags=flags)
try:
    mmap.mmap(-1, 2 << 20, flags=flags)
except OSError as error:
    print("refused")
"""


def test_high_slows_down_and_tells_before_max_kills(masu: Masu) -> None:
    eater = {"args": ["/bin/sh", "-c", f"sleep 2; {EAT}; exec sleep 100000"]}
    memory = {"high": "16Mi", "max": "24Mi", "swap": 0}
    notify = [{"on": "memory.high"}, {"on": "memory.pressure", "some": "50ms/1s"}]
    masu.write(container(process=eater, limits={"memory": memory}, notify=notify))
    masu.start()
    assert "in use of 24.0Mi" in told(masu, "MemoryHigh")["message"]
    assert "stalled" in told(masu, "MemoryPressure")["message"]
    assert not events(masu, "OomKilled"), "slowed down, not killed"
    masu.write(container(process=eater, limits={"memory": {**memory, "high": "24Mi"}}, notify=notify[1:]))
    told(masu, "OomKilled")
    kinds = [each["type"] for each in events(masu, "MemoryHigh", "OomKilled")]
    assert kinds[0] == "MemoryHigh"
    status = masu.status()
    assert status["counters"]["memoryHighEvents"] > 0
    assert status["conditions"] == [], "nothing of it is less than it says"


def test_a_group_that_runs_out_of_memory_ends_as_one(masu: Masu) -> None:
    masu.write(
        container(
            process={"args": ["/bin/sh", "-c", f"sleep 1000 & sleep 1000 & {EAT}; exec sleep 1000"]},
            limits={"memory": {"max": "16Mi", "swap": 0, "oomGroup": True}},
            restart={"policy": "never"},
        )
    )
    masu.start()
    assert told(masu, "Exited")["message"].startswith("OOMKilled")
    kills = masu.status()["counters"]["oomKills"]
    assert kills > 2, "the first victim counts twice; who ends with init before its turn comes is not counted"
    assert f"ended {kills} processes" in told(masu, "OomKilled")["message"]
    assert knob(masu, "web", "memory/", "memory.oom.group").read_text().strip() == "1"


def test_huge_pages_cannot_be_reserved_beyond_the_limit(masu: Masu) -> None:
    """Four pages on the host, two for the container, in whose cgroup the test itself asks for three."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    pool.write_text("4")
    try:
        masu.write(container(limits={"hugepages": {"2Mi": "4Mi"}}))
        assert masu.apply().returncode == 0
        group = knob(masu, "web", "hugetlb/", "cgroup.procs")
        argv = [sys.executable, "-c", RESERVE, str(group)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout.strip(), done.stderr) == ("refused", "")
    finally:
        pool.write_text(before)
        until(lambda: pool.read_text() == before, "the pages are given back")
