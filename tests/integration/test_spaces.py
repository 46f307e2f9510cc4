"""Disk space on real file systems: images on the machine's own, subvolumes on a btrfs made for the test.

Project quotas are tested in the virtual machine: tests/vm/inner/test_disk_space.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.spaces import ext4, loop
from controller.host.spaces.subvolumes import BtrfsSubvolumes
from controller.model.space import NewSpace, Space, SpaceChange
from tests.e2e.harness import until
from tests.spaces import (
    DATA,
    MI,
    check_that_it_grows_in_use,
    check_that_it_holds_what_it_may,
    check_that_what_is_half_made_goes,
    fill,
    made,
    places,
    refused,
    seen,
    spaces,
)

pytestmark = pytest.mark.root


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """With quotas."""
    image, place = tmp_path / "btrfs.img", tmp_path / "btrfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * MI)
    _run("mkfs.btrfs", "-q", str(image))
    _run("mount", "-o", "loop", str(image), str(place))
    try:
        _run("btrfs", "quota", "enable", str(place))
        yield place
    finally:
        _run("umount", str(place))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=60, capture_output=True)


def test_an_image_holds_what_it_may(tmp_path: Path) -> None:
    check_that_it_holds_what_it_may(tmp_path, "loopImage", errno.ENOSPC)
    assert _devices(tmp_path) == []


def test_a_subvolume_holds_what_it_may(btrfs: Path) -> None:
    check_that_it_holds_what_it_may(btrfs, "btrfsQgroup", errno.EDQUOT)


def test_a_subvolume_grows_in_use(btrfs: Path) -> None:
    check_that_it_grows_in_use(btrfs)


def test_what_is_half_made_goes(tmp_path: Path) -> None:
    check_that_what_is_half_made_goes(tmp_path)


def test_a_half_made_subvolume_goes(btrfs: Path) -> None:
    check_that_what_is_half_made_goes(btrfs)


def _as_nobody(directory: Path, script: str) -> None:
    """Without any capability, as a container may be."""
    argv = [
        "setpriv",
        "--reuid=7",
        "--regid=8",
        "--clear-groups",
        "--bounding-set=-all",
        "bash",
        "-ec",
        script,
    ]
    subprocess.run(argv, cwd=directory, check=True, timeout=60, stdout=subprocess.DEVNULL)


NESTED = {
    "in each other": "p=a; for i in $(seq 40); do btrfs subvolume create $p; p=$p/a; done",
    "read-only": (
        "btrfs subvolume create a; btrfs subvolume create a/b; : >a/b/file"
        "; btrfs property set -t subvol a/b ro true; btrfs property set -t subvol a ro true"
    ),
    "below a path that is too long": (
        "for i in $(seq 25); do n=$(printf '%0200d' $i); mkdir $n; cd -P $n; done"
        "; btrfs subvolume create $'line\\nfeed'; btrfs subvolume create $'line\\nfeed/b'"
    ),
    "in great numbers": "seq 300 | xargs -n 1 btrfs subvolume create",
    "a snapshot": "btrfs subvolume create a; btrfs subvolume create a/b; btrfs subvolume snapshot -r a c",
}


@pytest.mark.parametrize("script", NESTED.values(), ids=NESTED)
def test_subvolumes_that_a_container_has_made_go_with_its_own(btrfs: Path, script: str) -> None:
    """It takes no right to make them: no container may leave behind what masu cannot remove."""
    with made(btrfs, 64 * MI) as (one, content):
        _as_nobody(content, script)
    assert one.look(DATA) is None
    assert list((btrfs / "state/test/spaces/volume").iterdir()) == []
    said = subprocess.run(
        ["btrfs", "subvolume", "list", str(btrfs)], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == ""


def test_nobody_turns_quotas_on(btrfs: Path) -> None:
    """Without them, an image serves."""
    _run("btrfs", "quota", "disable", str(btrfs))
    assert BtrfsSubvolumes().lack(str(btrfs)) == "quotas of btrfs are off"
    assert spaces(btrfs).offer().mechanism == "loopImage"


def test_an_image_takes_what_is_in_it_and_gives_back_what_was(tmp_path: Path) -> None:
    with made(tmp_path, 256 * MI) as (one, content):
        image = Path(places(tmp_path).spaces) / "volume/data/image"
        assert _taken(image) < 2 * MI, "it is sparse"
        assert one.offer().promised > 250 * MI
        (content / "big").write_bytes(os.urandom(64 * MI))
        os.sync()
        assert 64 * MI <= _taken(image) < 72 * MI
        (content / "big").unlink()
        os.sync()
        until(lambda: _taken(image) < 16 * MI, "what is deleted inside is free outside")


def test_an_image_is_attached_once(tmp_path: Path) -> None:
    """Also when its mount was taken away while somebody still uses it: two devices of one file corrupt it."""
    with made(tmp_path, 32 * MI) as (one, content):
        place = content.parent
        with (content / "open").open("wb"):
            assert "busy" in refused(one, SpaceChange(mounted=False))
            _run("umount", "--lazy", str(place))
            live = seen(one)
            assert (live.mounted, live.attached) == (False, True)
            assert "in use" in refused(one, SpaceChange(size=64 * MI))
            one.change(DATA, SpaceChange(mounted=True))
            assert (content / "open").exists()
            assert len(_devices(tmp_path)) == 1


def test_a_device_that_has_become_anothers_is_not_taken(tmp_path: Path) -> None:
    """Between being found and being held it may go by itself, and be given to somebody else."""
    images = [tmp_path / each for each in ("ours", "theirs")]
    for each in images:
        each.write_bytes(bytes(MI))
    ours, theirs = map(str, images)
    with loop.attached(ours) as device:
        found = loop.find(ours)
        assert device == f"/dev/{found}"
        held = loop.hold_showing(found, ours)
        assert held is not None
        os.close(held)
        before = len(os.listdir("/proc/self/fd"))
        assert loop.hold_showing(found, theirs) is None
        assert len(os.listdir("/proc/self/fd")) == before
    assert loop.hold_showing("loop1048000", ours) is None


def test_an_image_that_comes_and_goes_is_never_anothers(tmp_path: Path) -> None:
    """Images of several directories, each with a lock of its own, follow each other on the first free devices."""
    images = [str(tmp_path / each / "image") for each in "ab"]
    for each in images:
        Path(each).parent.mkdir()
        Path(each).write_bytes(bytes(MI))

    def wrong(image: str) -> int:
        count = 0
        for _ in range(200):
            with loop.attached(image) as device:
                count += not loop.shows(os.path.basename(device), image)
        return count

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, [*images, *images])) == 0


def test_what_covers_an_image_goes(tmp_path: Path) -> None:
    with made(tmp_path, 32 * MI) as (one, content):
        (content / "x").touch()
        _run("mount", "-t", "tmpfs", "over", str(content.parent))
        assert not seen(one).mounted
        one.change(DATA, SpaceChange(mounted=True))
        assert (content / "x").exists()


def test_an_image_grows_while_nobody_uses_it(tmp_path: Path) -> None:
    with made(tmp_path, 32 * MI) as (one, content):
        (content / "x").write_text("still here")
        one.change(DATA, SpaceChange(mounted=False))
        assert not seen(one).attached
        image = Path(places(tmp_path).spaces) / "volume/data/image"
        os.truncate(image, 96 * MI)
        assert seen(one).limit == 32 * MI, "a file that was enlarged, and no more, has not grown"
        one.change(DATA, SpaceChange(size=96 * MI))
        one.change(DATA, SpaceChange(mounted=True))
        assert seen(one).limit == 96 * MI
        assert (content / "x").read_text() == "still here"
        assert fill(content / "big")[0] > 80 * MI


def test_a_last_group_that_is_too_small_is_no_difference(tmp_path: Path) -> None:
    """ext4 leaves out what would hold only its own tables: no look after that finds that it has to grow."""
    for size in (128 * MI + 64 * 1024, 132 * MI, 256 * MI + 4096):
        image = tmp_path / str(size)
        (tmp_path / "empty").mkdir(exist_ok=True)
        ext4.make(str(image), size, str(tmp_path / "empty"))
        assert ext4.size_of(str(image), size) == size


def test_what_is_damaged_is_said_and_never_made_anew(tmp_path: Path) -> None:
    one = spaces(tmp_path)
    one.make(DATA, NewSpace(32 * MI, keep=True))
    image = Path(places(tmp_path).spaces) / "volume/data/image"
    try:
        image.write_bytes(bytes(32 * MI))
        assert seen(one).exists
        with pytest.raises(StepFailed, match="mounting"):
            one.change(DATA, SpaceChange(mounted=True))
        image.unlink()
        live = seen(one)
        assert (live.exists, live.limit, live.mounted) == (True, 0, False)
        with pytest.raises(StepFailed, match="there is something"):
            one.make(DATA, NewSpace(32 * MI))
    finally:
        one.remove(DATA)


def test_a_space_that_cannot_be_read_stops_nobody_elses(tmp_path: Path) -> None:
    """Nor another one of the same instance: only who uses it hears of it."""
    with made(tmp_path, 32 * MI) as (one, _):
        for instance in ("test", "another"):
            broken = tmp_path / f"state/{instance}/spaces/volume/broken"
            broken.mkdir(parents=True)
            for name, text in {"mechanism": "loopImage", "size": str(64 * MI), "image": "image"}.items():
                (broken / name).symlink_to(text)
        assert 16 * MI < spaces(tmp_path).offer().promised < 32 * MI
        with pytest.raises(StepFailed, match="looking at"):
            one.look(Space("volume", "broken"))


def _taken(image: Path) -> int:
    return image.stat().st_blocks * 512


def _devices(directory: Path) -> list[str]:
    files = list(directory.glob("state/*/spaces/*/*/image"))
    found = [each for each in os.listdir("/sys/block") if each.startswith("loop")]
    return [each for each in found for file in files if loop.shows(each, str(file))]
