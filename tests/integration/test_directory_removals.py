"""When a file of the directory source counts as removed: not while it may be about to come back, but then soon."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.sources.directory import DirectorySource
from controller.sources.watch import GONE_S

LIMIT_S = 3.0
BUDGET_S = 0.05


class Follower:
    """Looks whenever it is nudged, as the daemon does; nothing else makes it look."""

    def __init__(self, root: Path) -> None:
        self._root, self._changed, self._nudged = root, threading.Condition(), threading.Event()
        self.source = DirectorySource(str(root))
        self.seen: list[tuple[float, dict[str, bytes]]] = []
        self._look()
        self._stop = threading.Event()
        self._watch = self.source.watch(self._nudged.set)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        self._watch.close()
        self._stop.set()
        self._nudged.set()
        self._thread.join(5)

    def until(self, is_so: Callable[[dict[str, bytes]], bool]) -> float:
        """The moment of the first look that shows it."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_so(self.seen[-1][1]), LIMIT_S), self.seen[-1]
            return next(at for at, files in self.seen if is_so(files))

    def _follow(self) -> None:
        while self._nudged.wait() and not self._stop.is_set():
            self._nudged.clear()
            self._look()

    def _look(self) -> None:
        files = {os.path.relpath(each.path, self._root): each.text for each in self.source.snapshot().files}
        with self._changed:
            self.seen.append((time.monotonic(), files))
            self._changed.notify_all()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "specs"
    (path / "sub").mkdir(parents=True)
    for name in ("web", "db", "sub/a"):
        (path / f"{name}.yaml").write_text("0")
    return path


@pytest.fixture
def follower(root: Path) -> Iterator[Follower]:
    found = Follower(root)
    yield found
    found.close()


REMOVALS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "deleted": ("db.yaml", lambda root: (root / "db.yaml").unlink()),
    "moved out": ("db.yaml", lambda root: (root / "db.yaml").rename(root.parent / "db.yaml")),
    "renamed": ("db.yaml", lambda root: (root / "db.yaml").rename(root / "other.yaml")),
    "its directory removed": ("sub/a.yaml", lambda root: shutil.rmtree(root / "sub")),
    "its directory moved": ("sub/a.yaml", lambda root: (root / "sub").rename(root / "bus")),
}


@pytest.mark.parametrize(("name", "remove"), REMOVALS.values(), ids=REMOVALS)
def test_what_is_removed_is_gone_soon_after(
    root: Path, follower: Follower, name: str, remove: Callable[[Path], object]
) -> None:
    began = time.monotonic()
    remove(root)
    assert GONE_S / 2 < follower.until(lambda files: name not in files) - began < 10 * GONE_S


def test_a_removal_does_not_hold_an_edit_up(root: Path, follower: Follower) -> None:
    """In the best of three: what else the machine does comes on top."""
    took = []
    for number in range(1, 4):
        (root / "db.yaml").write_text("0")
        time.sleep(2 * GONE_S)
        (root / ".web").write_text(str(number))
        began, text = time.monotonic(), str(number).encode()
        (root / "db.yaml").unlink()
        (root / ".web").rename(root / "web.yaml")
        took.append(follower.until(lambda files, text=text: files["web.yaml"] == text) - began)
    assert min(took) < BUDGET_S, took


def test_a_removal_from_a_directory_that_never_rests_is_seen(root: Path, follower: Follower) -> None:
    """The names that come and go there are hidden, so that nothing but the removal itself nudges."""
    stop = threading.Event()

    def rustle() -> None:
        while not stop.wait(0.01):
            (root / ".cache").touch()
            (root / ".cache").unlink()

    other = threading.Thread(target=rustle)
    other.start()
    try:
        (root / "db.yaml").unlink()
        follower.until(lambda files: "db.yaml" not in files)
    finally:
        stop.set()
        other.join(5)


def test_a_swap_of_kubernetes_data_that_leaves_a_file_out_removes_it(tmp_path: Path) -> None:
    """The file is missing in a directory that was made a moment ago, and no removal is ever announced."""
    root = tmp_path / "specs"
    for version, names in (("..1", ("web", "db")), ("..2", ("web",))):
        (root / version / "a").mkdir(parents=True)
        for name in names:
            (root / version / "a" / f"{name}.yaml").write_text(version)
    (root / "..data").symlink_to("..1")
    (root / "a").symlink_to("..data/a")
    follower = Follower(root)
    try:
        assert set(follower.seen[-1][1]) == {"a/web.yaml", "a/db.yaml"}
        (root / "..2/a").touch()
        (root / "..tmp").symlink_to("..2")
        (root / "..tmp").rename(root / "..data")
        follower.until(lambda files: files == {"a/web.yaml": b"..2"})
    finally:
        follower.close()


@pytest.mark.parametrize("gap_s", [0.012, GONE_S / 2])
def test_a_save_that_takes_its_time_is_no_removal(root: Path, follower: Follower, gap_s: float) -> None:
    for number in range(1, 6):
        text = str(number).encode()
        (root / "web.yaml").rename(root / "web.yaml~")
        time.sleep(gap_s)
        (root / "web.yaml").write_bytes(text)
        (root / "web.yaml~").unlink()
        follower.until(lambda files, text=text: files["web.yaml"] == text)
    assert all("web.yaml" in files for _, files in follower.seen)


def test_a_nudge_that_fails_ends_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    told = threading.Event()

    def nudge() -> None:
        told.set()
        raise ZeroDivisionError

    watch = DirectorySource(str(root)).watch(nudge)
    try:
        for act in (lambda: (root / "web.yaml").write_text("1"), lambda: shutil.rmtree(root), root.mkdir):
            told.clear()
            act()
            assert told.wait(LIMIT_S)
            time.sleep(2 * GONE_S)
    finally:
        watch.close()
    assert {each.exc_type for each in failed} == {ZeroDivisionError}
