"""A volume's files are exchanged for those of a checkpoint, and back, from wherever somebody was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.layers import LayerDirectories
from controller.host.snapshots import FileSnapshots
from controller.host.spaces.directories import SpaceDirectories
from controller.host.spaces.twins import Twins
from controller.model.checkpoint import UPPER, volume_tree
from controller.model.space import ROOTFS, Space
from tests.spaces import DATA, MI, made, places, seen

pytestmark = pytest.mark.root
TREE = volume_tree("data")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[tuple[SpaceDirectories, Path]]:
    """More than half full: both would not go into one."""
    with made(tmp_path, 32 * MI) as (one, content):
        (content / "file").write_text("now")
        (content / "large").write_bytes(os.urandom(18 * MI))
        yield one, content


def snapshots(tmp_path: Path, one: SpaceDirectories) -> FileSnapshots:
    return FileSnapshots(places(tmp_path), Twins(one, places(tmp_path).spaces))


def coming(tmp_path: Path, one: SpaceDirectories) -> FileSnapshots:
    found = snapshots(tmp_path, one)
    there = Path(found.incoming("web", (TREE,))[TREE])
    (there / "file").write_text("then")
    (there / "large").write_bytes(os.urandom(18 * MI))
    return found


def left(content: Path) -> list[str]:
    """Beside the volume, and what is mounted of it."""
    mounts = [each for each in Path("/proc/self/mountinfo").read_text().splitlines() if ".data" in each]
    return [*sorted(each.name for each in content.parents[2].iterdir()), *mounts]


def test_the_twin_takes_its_place_and_stays(tmp_path: Path, data: tuple[SpaceDirectories, Path]) -> None:
    one, content = data
    found = coming(tmp_path, one)
    assert found.pending("web") == "coming"
    assert found.pending("db") == ""
    assert (content / "file").read_text() == "now"
    found.swap("web")
    assert found.pending("web") == "swapped"
    assert (content / "file").read_text() == "then"
    live = seen(one)
    assert (live.mounted, live.keep, live.size) == (True, True, 32 * MI)
    found.settle("web")
    assert (content / "file").read_text() == "then"
    assert found.pending("web") == ""
    assert left(content) == ["data"]
    assert one.names("volume") == {"data"}
    again = coming(tmp_path, one)  # what took its place can be exchanged in turn
    again.swap("web")
    again.settle("web")
    assert left(content) == ["data"]


@pytest.mark.parametrize("swapped", [False, True])
def test_what_came_is_put_out_again(
    tmp_path: Path, data: tuple[SpaceDirectories, Path], swapped: bool
) -> None:
    one, content = data
    found = coming(tmp_path, one)
    if swapped:
        found.swap("web")
    found.put_back("web")
    assert (content / "file").read_text() == "now"
    assert found.pending("web") == ""
    assert left(content) == ["data"]
    found.put_back("web")  # nothing to do


def test_what_was_interrupted_is_ended(tmp_path: Path, data: tuple[SpaceDirectories, Path]) -> None:
    """After the rename that precedes a removal: of what came, and of what was there before."""
    one, content = data
    found = coming(tmp_path, one)
    aside, gone = (content.parents[2] / f".data.{each}" for each in ("coming", "removed"))
    one.mechanism_of(str(aside)).unmount(str(aside), busy=True)
    aside.rename(gone)
    assert found.pending("web") == "coming"
    found.put_back("web")
    assert left(content) == ["data"]
    found = coming(tmp_path, one)
    found.swap("web")
    one.mechanism_of(str(aside)).unmount(str(aside), busy=True)
    aside.rename(gone)
    assert found.pending("web") == "swapped"
    found.settle("web")
    assert (content / "file").read_text() == "then"
    assert left(content) == ["data"]


def test_it_goes_with_its_volume(tmp_path: Path, data: tuple[SpaceDirectories, Path]) -> None:
    one, content = data
    coming(tmp_path, one)
    one.remove(DATA)
    assert not content.exists()
    assert left(content) == []


def test_two_restores_do_not_meet_in_one_volume(tmp_path: Path, data: tuple[SpaceDirectories, Path]) -> None:
    one, _ = data
    coming(tmp_path, one).swap("web")
    with pytest.raises(StepFailed, match="another restore"):
        snapshots(tmp_path, one).incoming("db", (TREE,))


def test_without_the_volume_nothing_comes(tmp_path: Path, data: tuple[SpaceDirectories, Path]) -> None:
    one, _ = data
    with pytest.raises(StepFailed, match="not there"):
        snapshots(tmp_path, one).incoming("web", (volume_tree("other"),))


def test_a_layer_with_a_size_has_room_for_both(tmp_path: Path) -> None:
    """Each in a space of its own; the overlay finds what it needs in either."""
    space = Space(ROOTFS, "web")
    with made(tmp_path, 32 * MI, space) as (one, content):
        layers = LayerDirectories(places(tmp_path))
        layers.prepare("web", "frame", 1234, sized=True)
        (content / "upper" / "file").write_text("now")
        (content / "upper" / "large").write_bytes(os.urandom(18 * MI))
        found = snapshots(tmp_path, one)
        upper = Path(found.incoming("web", (UPPER,))[UPPER])
        upper.mkdir()
        (upper / "file").write_text("then")
        (upper / "large").write_bytes(os.urandom(18 * MI))
        found.swap("web")
        assert found.pending("web") == "swapped"
        assert (content / "upper" / "file").read_text() == "then"
        assert layers.state("web") == "frame"
        work = (content / "work").stat()
        assert (work.st_uid, work.st_mode & 0o777) == (1234, 0o700)
        found.put_back("web")
        assert (content / "upper" / "file").read_text() == "now"
        assert [each.name for each in content.parents[2].iterdir()] == ["web"]
