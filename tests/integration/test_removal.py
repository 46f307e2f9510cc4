"""Removing what a container has filled: all of it, nothing else, and with few descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.host.removal import remove_deep

DEEP, SOME = 3000, 12


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory: a disk takes seconds for as many files."""
    made = tempfile.mkdtemp(prefix="masu-t-", dir="/dev/shm")
    yield Path(made)
    subprocess.run(["rm", "-rf", made], check=True, timeout=60)


@contextmanager
def _few_descriptors(count: int) -> Iterator[None]:
    """So many and no more are left, wherever the numbers in use have gaps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count)]
    for each in free:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _make_deep(top: Path) -> None:
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("below", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("below", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _opened() -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{each}"))
    return found


def test_a_deep_tree_takes_few_descriptors(place: Path) -> None:
    """Or a container makes a tree that cannot be removed, and leaves no descriptors for the others meanwhile."""
    _make_deep(place / "top")
    before = len(os.listdir("/proc/self/fd"))
    with _few_descriptors(SOME):
        remove_deep(str(place / "top"))
    assert os.listdir(place) == []
    assert [each for each in _opened() if each.startswith(str(place / "top"))] == []
    assert len(os.listdir("/proc/self/fd")) <= before, "others may have closed theirs meanwhile"


def test_many_of_everything_go_and_what_links_lead_to_stays(place: Path) -> None:
    kept, top = place / "kept", place / "top"
    kept.mkdir()
    (kept / "file").write_text("x")
    for number in range(1200):
        (top / f"d{number}" / "e").mkdir(parents=True)
        (top / f"f{number}").symlink_to(kept)
        (top / f"d{number}" / "link").symlink_to(kept / "file")
    os.mkfifo(top / "d7" / "e" / "fifo")
    remove_deep(str(top))
    assert os.listdir(place) == ["kept"]
    assert (kept / "file").read_text() == "x"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove_deep(str(tmp_path / "missing"))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        remove_deep(str(tmp_path / "link"))


@pytest.mark.root
def test_what_is_mounted_below_is_no_part_of_it(tmp_path: Path) -> None:
    kept, place = tmp_path / "kept", tmp_path / "top" / "sub" / "place"
    place.mkdir(parents=True)
    kept.mkdir()
    (kept / "file").touch()
    subprocess.run(["mount", "--bind", str(kept), str(place)], check=True, timeout=10)
    try:
        with pytest.raises(OSError, match="cross-device") as info:
            remove_deep(str(tmp_path / "top"))
        assert info.value.errno == errno.EXDEV
        assert os.listdir(kept) == ["file"]
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=10)
    remove_deep(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == ["kept"]
