"""Devices on the real kernel: what is refused, what opens, and what is there as hardware comes and goes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from controller.host.cgroups import bpf
from tests.e2e.harness import ROOTFS, Masu, container, knob, set_knob, until

LATENCY = "/dev/cpu_dma_latency"
"""Is on every host, asks for no capability, and does nothing while nobody writes to it."""
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81


def _try(masu: Masu, script: str, name: str = "web") -> str:
    """The script's output and errors, in the container."""
    done = masu.run("exec", name, "--", "/bin/sh", "-c", script)
    return (done.stdout + done.stderr).strip()


def _reads(masu: Masu, path: str, name: str = "web") -> str:
    return _try(masu, f"true < {path} && echo opened", name)


def _writes(masu: Masu, path: str, name: str = "web") -> str:
    return _try(masu, f"true >> {path} && echo opened", name)


@pytest.fixture
def carrier(tmp_path: Path) -> Path:
    """A root file system that carries a node which nobody has allowed."""
    rootfs = tmp_path / "rootfs"
    shutil.copytree(ROOTFS, rootfs, symlinks=True)
    found = os.stat(LATENCY)
    os.mknod(rootfs / "carried", 0o666 | stat.S_IFCHR, found.st_rdev)
    (rootfs / "carried").chmod(0o666)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    return rootfs


@pytest.mark.on_v2
def test_without_devices_nothing_opens_but_what_every_container_has(either: Masu, carrier: Path) -> None:
    """Whatever its root file system carries, and whatever it can make with CAP_MKNOD."""
    numbers = os.stat(LATENCY).st_rdev
    either.write(container(rootfs={"path": str(carrier)}, process={"capabilities": {"add": ["MKNOD"]}}))
    assert either.apply().returncode == 0, either.apply().stderr
    assert either.plan()["changes"] == [], "the runtime has left no rules of its own"
    assert "Operation not permitted" in _reads(either, "/carried")
    assert "Operation not permitted" in _try(either, f"mknod /x c {os.major(numbers)} {os.minor(numbers)}"), (
        "what may not be opened may not be made"
    )
    assert _try(either, "mknod /y c 1 5 && head -c 3 /y | wc -c") == "3"
    default = "null zero full random urandom pts/ptmx"
    assert (
        _try(either, f"for each in {default}; do true < /dev/$each || exit 1; done; echo opened") == "opened"
    )


@pytest.mark.on_v2_long
def test_a_device_comes_changes_and_goes_while_the_container_runs(either: Masu) -> None:
    """Also where the file system below its /dev can hold no devices, and nobody's files but its own."""
    spaces = {"user": "auto"}
    either.write(container(namespaces=spaces))
    either.start()
    pid = either.running()
    inside = Path(f"/proc/{pid}/root/dev/sub/latency")
    device: dict[str, Any] = {"path": LATENCY, "as": "sub/latency", "access": "r"}
    either.write(container(namespaces=spaces, devices=[device]))
    until(inside.is_char_device, either.log)
    assert _reads(either, "/dev/sub/latency") == "opened"
    assert "Operation not permitted" in _writes(either, "/dev/sub/latency")
    wanted = {**device, "access": "rw", "mode": "0640", "owner": "1000:5"}
    either.write(container(namespaces=spaces, devices=[wanted]))
    until(lambda: inside.is_char_device() and inside.stat().st_mode & 0o777 == 0o640, either.log)
    script = "stat -c '%a %u %g' /dev/sub/latency; true >> /dev/sub/latency && echo opened"
    assert _try(either, script).split() == ["640", "1000", "5", "opened"]
    either.write(container(namespaces=spaces))
    until(lambda: not inside.exists(), either.log)
    assert either.pid() == pid
    assert either.stop() == 0
    assert either.plan()["changes"] == []


@pytest.mark.parametrize("user", ["host", "auto"])
def test_a_container_is_born_with_its_devices(either: Masu, user: str) -> None:
    """They open from the first instruction on, for whom they belong to."""
    script = 'true < /dev/latency && echo opened; stat -c "%a %u %g" /dev/latency; exec sleep 100000'
    either.write(
        container(
            process={"args": ["/bin/sh", "-c", script], "user": "1000:5"},
            namespaces={"user": user},
            devices=[{"path": LATENCY, "as": "latency", "mode": "0600", "owner": "1000:5"}],
        )
    )
    assert either.apply().returncode == 0, either.apply().stderr
    log = until(
        lambda: either.run("logs", "web").stdout.splitlines()[1:] and either.run("logs", "web").stdout,
        "a log",
    )
    assert log.splitlines() == ["opened", "600 1000 5"]
    assert either.plan()["changes"] == []


@pytest.mark.on_v2
def test_rules_and_nodes_that_somebody_else_changes_are_put_right(masu: Masu) -> None:
    masu.write(container(devices=[{"path": LATENCY, "as": "latency"}]))
    masu.start("--resync", "1s")
    pid = masu.running()
    until(lambda: masu.status()["converged"], lambda: str(masu.status()))
    for spoil in (_allow_everything, _refuse):
        spoil(masu)
        until(lambda: masu.status()["converged"], lambda: str(masu.status()))
        assert _reads(masu, "/dev/latency") == "opened"
    subprocess.run(
        ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--root=/proc/{pid}/root", "/bin/umount", "/dev/latency"],
        check=True,
        timeout=10,
    )
    until(lambda: _reads(masu, "/dev/latency") == "opened", masu.log)
    os.unlink(f"/proc/{pid}/root/dev/latency")
    until(lambda: _reads(masu, "/dev/latency") == "opened", masu.log)
    told = [(each["type"], each.get("key")) for each in masu.events()]
    assert told.count(("Repaired", "devices.rules")) == 2
    assert [each for each, _ in told].count("DeviceAdded") == 2


def _allow_everything(masu: Masu) -> None:
    directory = knob(masu, "web", "devices/.", ".")
    if (directory / "devices.allow").exists():
        set_knob(directory / "devices.allow", "a")
    else:
        _detach_all(directory)


def _refuse(masu: Masu) -> None:
    """What it may open, or on v2 everything, by a program of somebody else."""
    directory = knob(masu, "web", "devices/.", ".")
    if (directory / "devices.deny").exists():
        numbers = os.stat(LATENCY).st_rdev
        set_knob(directory / "devices.deny", f"c {os.major(numbers)}:{os.minor(numbers)} w")
        return
    cgroup = os.open(directory, os.O_RDONLY)
    program = bpf.load(b"\xb7\0\0\0\0\0\0\0\x95\0\0\0\0\0\0\0", "others")
    bpf.attach(cgroup, program)
    os.close(program)
    os.close(cgroup)


def _detach_all(directory: Path) -> None:
    cgroup = os.open(directory, os.O_RDONLY)
    for number in bpf.attached(cgroup):
        program = bpf.opened(number)
        assert program is not None
        bpf.detach(cgroup, program)
        os.close(program)
    os.close(cgroup)


def test_what_is_the_containers_own_is_in_the_way_and_stays(masu: Masu) -> None:
    """And a symbolic link below its /dev leads nowhere."""
    links = "ln -s /root /dev/link; ln -s /data /dev/latency"
    setup = f"echo mine > /dev/taken; {links}; touch /dev/good; exec sleep 100000"
    masu.write(container(process={"args": ["/bin/sh", "-c", setup]}))
    masu.start()
    pid = masu.running()
    until(lambda: _try(masu, "readlink /dev/latency") == "/data", "set up")
    places = ("taken", "link/deeper", "latency")
    claims = [{"path": LATENCY, "as": each} for each in places]
    masu.write(
        container(
            process={"args": ["/bin/sh", "-c", setup]}, devices=[*claims, {"path": LATENCY, "as": "good"}]
        )
    )
    until(lambda: _reads(masu, "/dev/good") == "opened", masu.log)
    said = until(
        lambda: [each for each in masu.status()["conditions"] if each["reason"] == "PlaceTaken"], masu.log
    )
    assert all(any(f"/dev/{place}:" in each["message"] for each in said) for place in places), said
    assert _try(masu, "cat /dev/taken; ls /root /data").splitlines()[0] == "mine"
    assert not Path(f"/proc/{pid}/root/root/deeper").exists()
    assert masu.pid() == pid


@pytest.fixture
def loop() -> Iterator[int]:
    """The number of a loop device that is not there, and is not there afterwards."""
    number = next(each for each in range(4200, 4300) if not os.path.exists(f"/dev/loop{each}"))
    try:
        yield number
    finally:
        with suppress(OSError):
            _loop(LOOP_CTL_REMOVE, number)


def _loop(command: int, number: int) -> None:
    with open("/dev/loop-control", "rb") as control:
        fcntl.ioctl(control, command, number)


@pytest.mark.parametrize("user", ["host", "auto"])
def test_what_is_plugged_in_appears_in_the_container_that_wants_it_and_only_there(
    masu: Masu, loop: int, user: str
) -> None:
    name = f"loop{loop}"
    wanting = container(
        namespaces={"user": user},
        devices=[{"match": {"subsystem": "block", "name": name}, "as": "disks/", "optional": True}],
    )
    masu.write(wanting, container("other"))
    masu.start("--resync", "1h")
    pid, other = masu.running(), masu.running("other")
    until(lambda: masu.status()["converged"], lambda: str(masu.status()))
    inside = Path(f"/proc/{pid}/root/dev/disks/{name}")
    for _ in range(2):
        _loop(LOOP_CTL_ADD, loop)
        until(inside.exists, masu.log)
        assert _reads(masu, f"/dev/disks/{name}") == "opened"
        assert not Path(f"/proc/{other}/root/dev/{name}").exists()
        _loop(LOOP_CTL_REMOVE, loop)
        until(lambda: not inside.exists(), masu.log)
        until(lambda: masu.status()["converged"], lambda: str(masu.status()))
    assert (masu.pid(), masu.pid("other")) == (pid, other)


def test_a_container_waits_for_its_device_and_goes_on_without_once_it_is_born(masu: Masu, loop: int) -> None:
    masu.write(container(devices=[{"path": f"/dev/loop{loop}", "as": "disk"}]))
    assert masu.apply("--wait", "1s").returncode == 1
    assert "NoDevice" in masu.run("plan", str(masu.source)).stdout
    masu.start("--resync", "1h")
    until(lambda: "NoDevice" in {each["reason"] for each in masu.status()["conditions"]}, masu.log)
    assert masu.pid() == 0
    _loop(LOOP_CTL_ADD, loop)
    pid = masu.running()
    assert _reads(masu, "/dev/disk") == "opened"
    _loop(LOOP_CTL_REMOVE, loop)
    gone = until(
        lambda: [each for each in masu.status()["conditions"] if each["reason"] == "NoDevice"], masu.log
    )
    assert f"/dev/loop{loop}" in gone[0]["message"]
    assert masu.pid() == pid
    assert "o such file" in _reads(masu, "/dev/disk")
