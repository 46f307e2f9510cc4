"""dm, md, partitions and multipath in a made-up /sys: this machine's kernel need not have them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.host.block_devices import BlockDevices
from controller.host.disks import HostDisks

LVM: Mapping[str, tuple[str, Sequence[str]]] = {
    "vda": ("254:0", ()),
    "vda/vda2": ("254:2", ()),
    "sdb": ("8:16", ()),
    "md0": ("9:0", ("vda2", "sdb")),
    "dm-0": ("253:0", ("md0",)),
    "dm-1": ("253:1", ("dm-0", "sdb")),
}
"""Name below its disk → (number, what it is made of): a mirror of a partition and a disk, and volumes on it."""


def _sys(root: Path, devices: Mapping[str, tuple[str, Sequence[str]]]) -> BlockDevices:
    places = {path.rpartition("/")[2]: root / "devices/block" / path for path in devices}
    for path, (number, slaves) in devices.items():
        place = root / "devices/block" / path
        (place / "slaves").mkdir(parents=True)
        (place / "dev").write_text(f"{number}\n")
        if "/" in path:
            (place / "partition").write_text("2\n")
        for each in slaves:
            (place / "slaves" / each).symlink_to(places[each])
        (root / "dev/block").mkdir(parents=True, exist_ok=True)
        link = root / "dev/block" / number
        link.symlink_to(os.path.relpath(place, link.parent))
    return BlockDevices(str(root))


def test_volumes_lead_down_to_whole_disks_and_each_is_named_once(tmp_path: Path) -> None:
    _sys(tmp_path, LVM)
    disks = HostDisks(str(tmp_path))
    found = dict.fromkeys((each.name, each.number, each.bottom) for each in disks.below(("253:1",)))
    assert list(found) == [
        ("dm-1", "253:1", False),
        ("dm-0", "253:0", False),
        ("md0", "9:0", False),
        ("sdb", "8:16", True),
        ("vda", "254:0", True),
    ]


def test_a_circle_ends(tmp_path: Path) -> None:
    _sys(tmp_path, {"dm-0": ("253:0", ("dm-1",)), "dm-1": ("253:1", ("dm-0",))})
    assert {each.name for each in HostDisks(str(tmp_path)).below(("253:0",))} == {"dm-0", "dm-1"}


def test_a_partition_is_its_disk_and_an_unknown_number_is_nothing(tmp_path: Path) -> None:
    devices = _sys(tmp_path, LVM)
    assert devices.whole("254:2") == "254:0"
    assert devices.whole("254:0") == "254:0"
    assert devices.whole("1:1") is None
    assert list(HostDisks(str(tmp_path)).below(("1:1",))) == []


def test_the_scheduler_in_use_and_odd_names(tmp_path: Path) -> None:
    devices = _sys(tmp_path, {"cciss!c0d0": ("104:0", ())})
    queue = tmp_path / "devices/block/cciss!c0d0/queue"
    queue.mkdir()
    for text, chosen in (("none mq-deadline [bfq]\n", "bfq"), ("none\n", "none"), ("", "")):
        (queue / "scheduler").write_text(text)
        assert devices.disk("104:0", bottom=True).scheduler == chosen
    assert devices.disk("104:0", bottom=True).name == "cciss/c0d0"


def test_a_loop_device_whose_file_is_gone_is_the_bottom(tmp_path: Path) -> None:
    devices = _sys(tmp_path, {"loop0": ("7:0", ())})
    loop = tmp_path / "devices/block/loop0/loop"
    loop.mkdir()
    for text in ("/srv/disk.img (deleted)\n", "/no/such/file\n"):
        (loop / "backing_file").write_text(text)
        (found,) = HostDisks(str(tmp_path)).below(("7:0",))
        assert (found.name, found.bottom) == ("loop0", True)
    assert devices.backing_file("7:0") == "/no/such/file"
