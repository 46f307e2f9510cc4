"""Which disks are behind a path: loop devices, partitions, overlays, btrfs, and file systems without a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.host.disks import HostDisks
from controller.model.disks import Backing
from tests.loop_disks import command, ext4_disk, loop_device, mounted

DISKS = HostDisks("/sys")


def _names(found: Backing) -> list[str]:
    return [each.name for each in found.disks]


def _below(path: Path) -> list[str]:
    """Names of the disks that the tests' own files are on."""
    return _names(DISKS.behind(str(path)))


def test_a_path_and_its_device_node_stand_for_the_same_disk(tmp_path: Path) -> None:
    with ext4_disk(tmp_path) as (device, directory):
        (directory / "file").touch()
        (tmp_path / "link").symlink_to(directory)
        name = device.removeprefix("/dev/")
        wanted = [name, *_below(tmp_path)]
        for path in (directory, directory / "file", tmp_path / "link", device):
            found = DISKS.behind(str(path))
            assert _names(found) == wanted, path
            assert found.writeback, "ext4 and the device itself charge who wrote"
            assert [each.bottom for each in found.disks] == [
                False,
                *(each == wanted[-1] for each in wanted[1:]),
            ]
        number = os.stat(device).st_rdev
        assert found.disks[0].number == f"{os.major(number)}:{os.minor(number)}"
        assert found.disks[0].scheduler


def test_a_loop_on_a_loop_is_three_disks(tmp_path: Path) -> None:
    with ext4_disk(tmp_path) as (outer, directory), loop_device(directory / "inner.img", "8M") as inner:
        names = [each.removeprefix("/dev/") for each in (inner, outer)]
        assert _names(DISKS.behind(inner)) == [*names, *_below(tmp_path)]


def test_a_partition_is_its_whole_disk(tmp_path: Path) -> None:
    with loop_device(tmp_path / "disk.img") as device:
        command("addpart", device, "1", "2048", "65536")
        try:
            part = f"{device}p1"
            whole = _names(DISKS.behind(device))
            assert _names(DISKS.behind(part)) == whole
            command("mkfs.ext4", "-q", "-F", part)
            with mounted(part, tmp_path / "part") as directory:
                assert _names(DISKS.behind(str(directory))) == whole
        finally:
            command("delpart", device, "1")


def test_a_bind_mount_is_what_it_shows(tmp_path: Path) -> None:
    with (
        ext4_disk(tmp_path) as (device, directory),
        mounted(str(directory), tmp_path / "b", "--bind") as bound,
    ):
        assert _names(DISKS.behind(str(bound)))[0] == device.removeprefix("/dev/")


@contextmanager
def _overlay(target: Path, upper: Path, *lower: Path) -> Iterator[Path]:
    (upper / "upper").mkdir(parents=True)
    (upper / "work").mkdir()
    below = ":".join(str(each).replace(":", "\\:") for each in lower)
    options = f"lowerdir={below},upperdir={upper}/upper,workdir={upper}/work"
    with mounted("overlay", target, "-t", "overlay", "-o", options) as directory:
        yield directory


def test_an_overlay_is_where_it_is_written_to_and_read_from(tmp_path: Path) -> None:
    lower = tmp_path / "a:b c"
    lower.mkdir()
    (tmp_path / "d").mkdir()
    with ext4_disk(tmp_path / "d") as (device, disk), _overlay(tmp_path / "o", disk / "x", lower) as over:
        found = DISKS.behind(str(over))
        assert _names(found) == [device.removeprefix("/dev/"), *_below(tmp_path)]
        assert found.writeback


def test_an_overlay_in_memory_has_no_disk_whatever_it_lies_on(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    memory = tmp_path / "memory"
    made = mounted("tmpfs", memory, "-t", "tmpfs"), _overlay(tmp_path / "o", memory / "x", tmp_path / "lower")
    with made[0], made[1] as over:
        found = DISKS.behind(str(over))
        assert found.lacks == f"it is an overlay on {memory}/x/upper: tmpfs has no disk on this host"


def test_btrfs_is_all_of_its_devices_in_every_subvolume(tmp_path: Path) -> None:
    with loop_device(tmp_path / "1.img", "128M") as one, loop_device(tmp_path / "2.img", "128M") as two:
        command("mkfs.btrfs", "-q", "-f", one, two)
        command("btrfs", "device", "scan", one, two)
        with mounted(one, tmp_path / "btrfs") as directory:
            command("btrfs", "subvolume", "create", str(directory / "sub"))
            both = {each.removeprefix("/dev/") for each in (one, two)}
            for path in (directory, directory / "sub"):
                found = DISKS.behind(str(path))
                assert set(_names(found)) == both | set(_below(tmp_path))
                assert found.writeback


@pytest.mark.parametrize(
    ("path", "lacks"),
    [
        ("/proc/self", "proc has no disk on this host"),
        ("/dev/null", "devtmpfs has no disk on this host"),
        ("/no/such/path", "it is not there"),
        ("/etc/passwd/x", "it is not there"),
    ],
)
def test_what_has_no_disk_says_why(path: str, lacks: str) -> None:
    assert DISKS.behind(path) == Backing(lacks=lacks)


def test_the_hardware_is_what_is_made_of_nothing_else(tmp_path: Path) -> None:
    with loop_device(tmp_path / "disk.img") as device:
        names = [each.name for each in DISKS.hardware()]
        assert device.removeprefix("/dev/") not in names
        assert not [each for each in names if each.startswith(("zram", "ram", "dm-", "md"))]
