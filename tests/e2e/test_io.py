"""limits.io on the real kernel: held to what is written, in bytes and in operations, live, and repaired."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, growth, knob, memory_max, set_knob, until
from tests.loop_disks import ext4_disk

PROGRAMS = "/opt/masu/rootfs/programs"
MI = 1 << 20
FIO = (
    "fio --output-format=json --thread --directory=/disk --direct=1 --ioengine=psync --size=4M --time_based"
    " --ramp_time=1s --runtime=3s --name=reader --rw=randread --name=writer --rw=randwrite"
)
"""One reader and one writer at once. What goes through while the first slices are dealt out is not counted.

The limits are low: an operation each 6 ms and more, so that a busy machine is not what is measured.
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(device, directory) of a disk that is as fast as memory: what holds fio back is the limit alone."""
    with ext4_disk(tmp_path, "128M") as made:
        yield made


def _on(directory: Path, **amounts: Any) -> dict[str, Any]:
    return container(
        rootfs={"path": PROGRAMS},
        mounts=[{"source": str(directory), "target": "/disk"}],
        limits={"io": [{"path": str(directory), **amounts}]},
    )


def _fio(masu: Masu, block: str) -> dict[str, dict[str, float]]:
    done = masu.run("exec", "web", "--", *FIO.split(), f"--bs={block}")
    assert done.returncode == 0, done.stderr
    jobs = {each["jobname"]: each for each in json.loads(done.stdout)["jobs"]}
    return {"read": jobs["reader"]["read"], "write": jobs["writer"]["write"]}


@pytest.mark.slow
@pytest.mark.alone
def test_fio_is_held_to_the_bytes_and_to_the_operations_of_each_direction(
    disk: tuple[str, Path], masu: Masu
) -> None:
    _, directory = disk
    masu.write(_on(directory, read="10Mi/s", write="5Mi/s"))
    masu.start()
    pid = masu.running()
    found = _fio(masu, "64k")
    assert found["read"]["bw_bytes"] == pytest.approx(10 * MI, rel=0.05)
    assert found["write"]["bw_bytes"] == pytest.approx(5 * MI, rel=0.05)
    masu.write(_on(directory, read="max", write="max", readIops=100, writeIops=50))
    until(lambda: not masu.plan()["changes"], "the edit is live")
    found = _fio(masu, "4k")
    assert found["read"]["iops"] == pytest.approx(100, rel=0.05)
    assert found["write"]["iops"] == pytest.approx(50, rel=0.05)
    assert masu.pid() == pid


def _written(masu: Masu, number: str) -> int:
    """Bytes, as the kernel has counted them for the container."""
    text = knob(masu, "web", "blkio/blkio.throttle.io_service_bytes", "io.stat").read_text()
    return next(int(line.split()[2]) for line in text.splitlines() if line.startswith(f"{number} Write "))


def _rate(masu: Masu, number: str) -> float:
    """Within a fifth or so: the kernel deals out a tenth of a second at once, and balances that later."""
    return growth(lambda: _written(masu, number))


@pytest.mark.slow
@pytest.mark.alone
def test_a_limit_changes_under_a_running_writer_and_comes_back_when_somebody_else_changes_it(
    disk: tuple[str, Path], masu: Masu
) -> None:
    device, directory = disk
    number = Path(f"/sys/class/block/{Path(device).name}/dev").read_text().strip()
    masu.write(_on(directory, write="10Mi/s"))
    masu.start("--resync", "60s")
    pid = masu.running()
    limit = knob(masu, "web", "blkio/blkio.throttle.write_bps_device", "io.max")

    def now() -> str:
        return dict(line.split(" ", 1) for line in limit.read_text().splitlines()).get(number, "")

    writer = "--name=writer --directory=/disk --rw=write --bs=64k --size=16M --direct=1 --ioengine=psync"
    endless = f"fio --thread {writer} --time_based --runtime=60"
    argv = [*masu._argv(), "exec", "web", "--", *endless.split()]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as running:
        try:
            until(lambda: _written(masu, number) > 4 * MI, "it writes")
            assert _rate(masu, number) == pytest.approx(10 * MI, rel=0.3)
            masu.write(_on(directory, write="30Mi/s"))
            until(lambda: now() == str(30 * MI), "the edit is live")
            assert _rate(masu, number) == pytest.approx(30 * MI, rel=0.3)
            for wrong in ("1048576", "0"):
                set_knob(limit, f"{number} {wrong}")
                began = time.monotonic()
                until(lambda: now() == str(30 * MI), "repaired")
                assert time.monotonic() - began < 1
        finally:
            running.kill()
    assert masu.pid() == pid
    status = masu.status()
    assert status["converged"]
    assert [(each["type"], each["reason"]) for each in status["conditions"]] == [("Limited", "DirectIoOnly")]
    masu.write(_on(directory, write="max"))
    until(lambda: now() == "", "no limit is left")


@pytest.fixture
def directory() -> Iterator[Path]:
    """On the machine's own disk; /tmp may be none."""
    made = Path(tempfile.mkdtemp(prefix="masu-test-", dir="/var/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _seconds(masu: Masu, command: str) -> float:
    """How long it took in the container, without the way there."""
    script = f"read a b </proc/uptime && {command} 2>/dev/null && read c d </proc/uptime && echo $a $c"
    done = masu.run("exec", "web", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    began, ended = map(float, done.stdout.split())
    return ended - began


@pytest.mark.on_v2
def test_what_the_kernel_can_hold_back_is_held_and_the_rest_is_said(directory: Path, masu: Masu) -> None:
    """Direct writes everywhere; buffered ones on cgroup v2, where they are charged to whoever wrote them."""
    on_v2 = memory_max(masu).name == "memory.max"
    spec = [{"path": str(directory), "write": "2Mi/s"}, {"weight": 300}, {"path": "/proc", "read": "1Mi/s"}]
    mounts = [{"source": str(directory), "target": "/mnt"}]
    masu.write(container(mounts=mounts, limits={"io": spec}))
    masu.start("--resync", "60s")
    masu.running()
    dd = "dd if=/dev/zero of=/mnt/file bs=64k"
    direct = _seconds(masu, f"{dd} count=64 oflag=direct")
    buffered = _seconds(masu, f"{dd} count=160 conv=fsync") if on_v2 else 5.0
    for kind, rate in (("direct", 4 / direct), ("buffered", 10 / buffered)):
        assert 1.5 <= rate <= 2.2, f"{kind}: {rate} MiB/s; a slow machine may be late, and nobody early"
    reasons = sorted({(each["type"], each["reason"]) for each in masu.status()["conditions"]})
    said = [("HostLacks", "NoDisk"), ("Limited", "DirectIoOnly"), ("Limited", "NoWeightScheduler")]
    assert reasons == [each for each in said if not (on_v2 and each[1] == "DirectIoOnly")]
    weight = knob(masu, "web", "blkio/blkio.bfq.weight", "io.weight")
    assert weight.read_text().split()[-1] == ("300" if on_v2 else "118")


@pytest.mark.on_v2
def test_only_the_written_part_of_a_line_is_repaired(directory: Path, masu: Masu) -> None:
    on_v2 = memory_max(masu).name == "memory.max"
    masu.write(container(limits={"io": [{"path": str(directory), "write": "2Mi/s"}]}))
    masu.start("--resync", "60s")
    masu.running()
    limit = knob(masu, "web", "blkio/blkio.throttle.write_bps_device", "io.max")
    number = limit.read_text().split()[0]
    wrong, right = (
        ("wbps=max riops=77", "rbps=max wbps=2097152 riops=77 wiops=max") if on_v2 else ("5", "2097152")
    )
    set_knob(limit, f"{number} {wrong}")
    until(lambda: limit.read_text() == f"{number} {right}\n", lambda: f"repaired: {limit.read_text()}")
    assert masu.status()["drift"] == []


def test_a_disk_that_is_mounted_later_is_found(tmp_path: Path, masu: Masu) -> None:
    """Until then nothing else waits for it."""
    target = tmp_path / "disk"
    entries = [{"path": str(target), "read": "2Mi/s"}, {"path": "/var/tmp", "read": "3Mi/s"}]
    masu.write(container(limits={"io": entries, "pids": {"max": 20}}))
    done = masu.apply()
    assert done.returncode == 5
    assert f"limits.io {target}: it is not there" in done.stderr
    limit = knob(masu, "web", "blkio/blkio.throttle.read_bps_device", "io.max")
    assert limit.read_text().split()[1::2] == [str(3 * MI)]
    pid = masu.pid()
    with ext4_disk(tmp_path):
        assert masu.apply().returncode == 0
        assert masu.pid() == pid
        assert sorted(limit.read_text().split()[1::2]) == [str(2 * MI)] * 2, (
            "the smallest counts where both are"
        )


def test_a_limit_holds_nobody_in_life_and_is_there_again_at_the_next_birth(masu: Masu) -> None:
    """Its root file system is taken down by its last process: five operations a second would take half a minute."""
    limits = {"io": [{"path": "/var/lib", "writeIops": 5, "write": "512Ki/s"}]}
    scratch = "for i in $(seq 50); do dd if=/dev/zero of=/root/f$i bs=64k count=4 2>/dev/null; done"
    limit = knob(masu, "web", "blkio/blkio.throttle.write_iops_device", "io.max")
    for env in ({"A": "1"}, {"A": "2"}):
        masu.write(container(limits=limits, process={"env": env}))
        assert masu.apply().returncode == 0
        assert "5" in limit.read_text().replace("=", " ").split()
    assert masu.run("exec", "web", "--", "sh", "-c", scratch).returncode == 0
    began = time.monotonic()
    assert masu.run("down", "web", "--wait", "60s").returncode == 0
    assert time.monotonic() - began < 10
