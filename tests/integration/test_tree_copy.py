"""Trees that are copied twice: what was changed in between, however, is in the second copy as it is."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from controller.host import tree_copy
from controller.host.checkpoints import trees
from controller.host.tree_copy import TreeCopier

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_copy, "WORTH_IT", 0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """On a file system that writes back, whatever is below /tmp."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        for each in ("source", "target"):
            (place / each).mkdir()
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def everything(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for entry, file in trees.scan(str(root)):
        content = os.pread(file.descriptor, entry.size, 0) if file else b""
        seen = os.lstat(root / entry.path)
        first = inodes.setdefault(seen.st_ino, entry.path)
        found[entry.path] = (entry, content, first, stat.S_IMODE(seen.st_mode))
    return found


SIZE = 20_000


class Busy:
    """Somebody who does whatever one can do to a tree, by turns, until told to stop."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root, self._random = root, random.Random(seed)
        self._stopped = threading.Event()
        self._mapped: list[mmap.mmap] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for each in self._mapped:
            each.close()

    def _run(self) -> None:
        acts = (
            self._write, self._write, self._append, self._map, self._scribble, self._scribble, self._link,
            self._rename, self._remove, self._directory, self._symlink, self._mode,
        )  # fmt: skip
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, ValueError):
                self._random.choice(acts)()

    def _path(self) -> Path:
        parts = [f"d{self._random.randrange(3)}" for _ in range(self._random.randrange(3))]
        return self._root.joinpath(*parts, f"f{self._random.randrange(8)}")

    def _write(self) -> None:
        """Never shorter: whoever has it mapped would die of that."""
        descriptor = os.open(self._path(), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, self._random.randbytes(SIZE), 0)
        finally:
            os.close(descriptor)

    def _append(self) -> None:
        with self._path().open("ab") as file:
            file.write(b"more")

    def _map(self) -> None:
        with self._path().open("r+b") as file:
            self._mapped.append(mmap.mmap(file.fileno(), SIZE))
        if len(self._mapped) > 8:
            self._mapped.pop(0).close()

    def _scribble(self) -> None:
        if self._mapped:
            chosen = self._random.choice(self._mapped)
            at = self._random.randrange(len(chosen))
            chosen[at] = self._random.randrange(256)

    def _link(self) -> None:
        os.link(self._path(), self._path())

    def _rename(self) -> None:
        os.rename(self._path(), self._path())

    def _remove(self) -> None:
        path = self._path()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _directory(self) -> None:
        (self._path().parent / f"d{self._random.randrange(3)}").mkdir()

    def _symlink(self) -> None:
        self._path().parent.joinpath(f"d{self._random.randrange(3)}").symlink_to("/etc")

    def _mode(self) -> None:
        self._path().chmod(self._random.choice((0o600, 0o644, 0o4755)))


@pytest.mark.parametrize("seed", range(6))
def test_the_second_copy_is_what_is_there_then(disk: Path, seed: int) -> None:
    source, target = disk / "source", disk / "target"
    copier = TreeCopier(str(target), 0)
    with Busy(source, seed):
        for _ in range(3):
            copier.copy_ahead(str(source))
    copier.copy(str(source))
    assert everything(target) == everything(source)


def test_what_is_the_same_is_not_copied_again(disk: Path) -> None:
    source, target = disk / "source", disk / "target"
    (source / "sub").mkdir()
    for name in ("one", "two", "sub/three"):
        (source / name).write_bytes(bytes([1]) * 100_000)
        os.utime(source / name, ns=(1, 1))
    os.link(source / "one", source / "sub" / "other")
    until_settled(source)
    copier = TreeCopier(str(target), 0)
    copier.copy_ahead(str(source))
    assert copier.copied == 300_000
    before = {name: (target / name).stat().st_ino for name in ("one", "two", "sub/three")}
    (source / "two").write_bytes(b"2")
    (source / "sub" / "three").unlink()
    copier.copy(str(source))
    assert copier.copied == 1
    assert (target / "one").stat().st_ino == before["one"] == (target / "sub" / "other").stat().st_ino
    assert everything(target) == everything(source)


def until_settled(source: Path) -> None:
    """Times of just now count as changed: let them be older."""
    newest = max(each.stat().st_ctime_ns for each in source.rglob("*"))
    while tree_copy.time.time_ns() - 2 * tree_copy._COARSE_NS < newest:
        pass


def test_a_mapped_file_is_copied_again_although_nobody_called_write(disk: Path) -> None:
    source, target = disk / "source", disk / "target"
    (source / "data").write_bytes(bytes(8192))
    with (source / "data").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 1  # the page can be written to from now on, unseen
        until_settled(source)
        copier = TreeCopier(str(target), 0)
        copier.copy_ahead(str(source))
        memory[0] = 2
        copier.copy(str(source))
        assert (target / "data").read_bytes()[0] == 2


def test_what_has_become_a_link_leads_nowhere(disk: Path) -> None:
    """A directory of the first time is one out of the tree the second time: nothing is removed through it."""
    source, target, outside = disk / "source", disk / "target", disk / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (source / "d").mkdir()
    (source / "d" / "kept").write_text("inside")
    copier = TreeCopier(str(target), 0)
    copier.copy_ahead(str(source))
    shutil.rmtree(source / "d")
    (source / "d").symlink_to(outside)
    copier.copy(str(source))
    assert os.readlink(target / "d") == str(outside)
    assert (outside / "kept").read_text() == "kept"


def test_where_nothing_is_written_back_all_is_copied_at_once(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        for each in ("source", "target"):
            (tmp_path / each).mkdir()
        (tmp_path / "source" / "file").write_text("x")
        copier = TreeCopier(str(tmp_path / "target"), 0)
        copier.copy_ahead(str(tmp_path / "source"))
        assert not (tmp_path / "target" / "file").exists()
        copier.copy(str(tmp_path / "source"))
        assert (tmp_path / "target" / "file").read_text() == "x"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_more_than_can_be_remembered_is_copied_at_once(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_copy, "MOST_REMEMBERED", 3)
    source, target = disk / "source", disk / "target"
    for number in range(6):
        (source / str(number)).write_text(str(number))
    copier = TreeCopier(str(target), 0)
    copier.copy_ahead(str(source))
    (source / "5").unlink()
    copier.copy(str(source))
    assert everything(target) == everything(source)
