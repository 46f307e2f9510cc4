"""Copies of a layer, and the two renames that put other files in its place, undone from wherever they came to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.places import Places
from controller.host.snapshots import LayerSnapshots

HOLE = 1 << 20


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    upper = tmp_path / "t" / "layers" / "web" / "upper"
    upper.mkdir(parents=True)
    (upper / "file").write_text("now")
    return upper


def snapshots(tmp_path: Path) -> LayerSnapshots:
    return LayerSnapshots(Places("t", str(tmp_path), str(tmp_path)))


def test_a_copy_leaves_the_room_that_shall_stay_free(tmp_path: Path, layer: Path) -> None:
    del layer
    with pytest.raises(StepFailed, match="shall stay free"):
        snapshots(tmp_path).copier("web", 1 << 60)()


def test_a_copy_has_owners_times_links_and_holes(tmp_path: Path, layer: Path) -> None:
    with (layer / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    os.link(layer / "file", layer / "second")
    os.symlink("nowhere", layer / "link")
    os.chown(layer / "file", 1234, 99)
    os.utime(layer / "file", ns=(5, 7_000_000_001))
    os.mknod(layer / "gone", 0o020000, os.makedev(0, 0))
    taken = snapshots(tmp_path)
    found = taken.copier("web", 0)()
    copy = Path(found.path)
    assert (copy / "file").read_text() == "now"
    seen = (copy / "file").stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_nlink) == (1234, 99, 7_000_000_001, 2)
    assert (copy / "sparse").stat().st_size == HOLE + 3
    assert (copy / "sparse").stat().st_blocks * 512 < HOLE
    assert found.copied + found.cloned < 2 * HOLE
    assert os.readlink(copy / "link") == "nowhere"
    assert (copy / "gone").is_char_device()
    (layer / "file").write_text("later")
    assert (copy / "file").read_text() == "now"
    taken.copier("web", 0)()  # the last one is no hindrance
    taken.drop("web")
    assert not copy.exists()
    taken.drop("web")


def prepared(tmp_path: Path) -> LayerSnapshots:
    found = snapshots(tmp_path)
    coming = Path(found.incoming("web"))
    coming.mkdir()
    (coming / "file").write_text("then")
    return found


def test_files_are_swapped_and_what_was_there_goes_or_returns(tmp_path: Path, layer: Path) -> None:
    found = prepared(tmp_path)
    assert found.pending("web") == "coming"
    found.swap("web")
    assert found.pending("web") == "swapped"
    assert (layer / "file").read_text() == "then"
    found.put_back("web")
    assert found.pending("web") == ""
    assert (layer / "file").read_text() == "now"
    found = prepared(tmp_path)
    found.swap("web")
    found.settle("web")
    assert found.pending("web") == ""
    assert (layer / "file").read_text() == "then"
    assert os.listdir(layer.parent) == ["upper"]


def test_half_a_swap_is_put_back(tmp_path: Path, layer: Path) -> None:
    found = prepared(tmp_path)
    layer.rename(layer.parent / "kept")
    assert found.pending("web") == "swapped"
    found.put_back("web")
    assert (layer / "file").read_text() == "now"
    assert os.listdir(layer.parent) == ["upper"]


def test_half_an_undoing_and_half_a_removal_go_on(tmp_path: Path, layer: Path) -> None:
    """What was kept is never taken for whole once its removal has begun."""
    found = prepared(tmp_path)
    found.swap("web")
    (layer / "file").unlink()  # put_back was at it
    found.put_back("web")
    assert (layer / "file").read_text() == "now"
    found = prepared(tmp_path)
    found.swap("web")
    (layer.parent / "kept").rename(layer.parent / "coming")  # settle was at it
    found.put_back("web")
    assert (layer / "file").read_text() == "then"
    assert os.listdir(layer.parent) == ["upper"]
