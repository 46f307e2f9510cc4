"""When the directory source calls for a look, how soon, and that it survives what happens to the directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.sources.directory import DirectorySource
from controller.sources.watch import Watch

HOME = str(Path(__file__).parents[2])
LIMIT_S = 5.0
QUIET_S = 0.3
AT_ONCE_S = 0.2
"""Told by an event, on a machine that is busy too; polling and the pairing of moves take half a second."""


class Nudges:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.times: list[float] = []

    def __call__(self) -> None:
        with self._changed:
            self.times.append(time.perf_counter())
            self._changed.notify_all()

    def after(self, act: Callable[[], object]) -> float:
        """Seconds from `act` to the first nudge that it causes."""
        with self._changed:
            self.times.clear()
        began = time.perf_counter()
        act()
        with self._changed:
            assert self._changed.wait_for(lambda: self.times, LIMIT_S), "no nudge came"
            return self.times[0] - began

    def settle(self) -> None:
        while True:
            with self._changed:
                self.times.clear()
                if not self._changed.wait_for(lambda: self.times, QUIET_S):
                    return


@pytest.fixture
def nudges() -> Nudges:
    return Nudges()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "specs"
    path.mkdir()
    (path / "web.yaml").write_text("0")
    return path


@pytest.fixture
def watch(root: Path, nudges: Nudges) -> Iterator[Watch]:
    found = DirectorySource(str(root)).watch(nudges)
    yield found
    found.close()


def move_in(root: Path) -> None:
    (root / ".new").write_text("new")
    (root / ".new").rename(root / "web.yaml")


def swap_data(root: Path) -> None:
    (root / "..tmp").symlink_to("..2")
    (root / "..tmp").rename(root / "..data")


CHANGES: dict[str, Callable[[Path], object]] = {
    "close after writing": lambda root: (root / "web.yaml").write_text("new"),
    "rename into place": move_in,
    "move out": lambda root: (root / "web.yaml").rename(root.parent / "web.yaml"),
    "delete": lambda root: (root / "web.yaml").unlink(),
    "swap of ..data": swap_data,
    "hard link": lambda root: os.link(root / "web.yaml", root / "b.yaml"),
    "directory made": lambda root: (root / "sub").mkdir(),
    "root removed": shutil.rmtree,
    "root moved away": lambda root: root.rename(root.parent / "elsewhere"),
    "made readable": lambda root: (root / "web.yaml").chmod(0o644),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nudges_at_once(root: Path, watch: Watch, nudges: Nudges, change: Callable[[Path], object]) -> None:
    assert nudges.after(lambda: change(root)) < AT_ONCE_S
    assert watch.degraded == ""


def test_a_save_with_the_backup_elsewhere_is_not_held_up(root: Path, watch: Watch, nudges: Nudges) -> None:
    """The move out of the tree has no counterpart that anybody could wait for."""
    (root / "web.yaml").rename(root.parent / "web.yaml~")
    assert nudges.after(lambda: (root / "web.yaml").write_text("new")) < AT_ONCE_S


def test_the_99th_percentile_from_rename_to_nudge_is_below_5_ms(
    root: Path, watch: Watch, nudges: Nudges
) -> None:
    """In the best of three rounds: what else the machine does comes on top in each."""

    def once() -> float:
        (root / ".new").write_text("new")
        time.sleep(0.003)
        return nudges.after(lambda: (root / ".new").rename(root / "web.yaml"))

    rounds = [sorted(once() for _ in range(100))[98] for _ in range(3)]
    assert min(rounds) < 0.005, rounds


def test_reading_and_unfinished_writing_are_no_reason(root: Path, watch: Watch, nudges: Nudges) -> None:
    source = DirectorySource(str(root))
    with (root / "web.yaml").open("w") as file:
        nudges.settle()
        file.write("half")
        file.flush()
        for _ in range(5):
            source.snapshot()
        time.sleep(QUIET_S)
        assert nudges.times == []
        file.write("whole")
    time.sleep(QUIET_S)
    assert len(nudges.times) == 1


def test_hidden_trees_are_no_reason(root: Path, watch: Watch, nudges: Nudges) -> None:
    (root / ".git/objects").mkdir(parents=True)
    (root / ".git/objects/1.yaml").write_text("x")
    (root / ".web.yaml.swp").write_text("x")
    time.sleep(QUIET_S)
    assert nudges.times == []


def test_files_in_directories_made_quickly_are_all_found(root: Path, watch: Watch, nudges: Nudges) -> None:
    """The watch on a new directory always comes later than the directory; what came between must not be lost."""
    source, deep = DirectorySource(str(root)), root
    for number in range(20):
        deep = deep / str(number)
        deep.mkdir()
        (deep / "web.yaml").write_text(str(number))
    nudges.settle()
    assert len(source.snapshot().files) == 21
    assert nudges.after(lambda: (deep / "late.yaml").write_text("x")) < AT_ONCE_S


def test_a_directory_that_moved_is_still_watched(root: Path, watch: Watch, nudges: Nudges) -> None:
    (root / "a/deep").mkdir(parents=True)
    nudges.settle()
    (root / "a").rename(root / "b")
    nudges.settle()
    (root / "b/deep/new").mkdir()
    nudges.settle()
    assert nudges.after(lambda: (root / "b/deep/new/web.yaml").write_text("x")) < AT_ONCE_S


def test_500_files_at_once_are_all_in_the_snapshot_after_the_last_nudge(root: Path) -> None:
    source, woken = DirectorySource(str(root)), threading.Event()
    watch = source.watch(woken.set)
    try:
        for number in range(500):
            (root / f"{number}.yaml").write_text(str(number))
        count, deadline = 0, time.monotonic() + LIMIT_S
        while count < 501 and time.monotonic() < deadline:
            woken.wait(LIMIT_S)
            woken.clear()
            count = len(source.snapshot().files)
    finally:
        watch.close()
    assert count == 501


def test_a_root_that_comes_back_is_watched_again(root: Path, watch: Watch, nudges: Nudges) -> None:
    shutil.rmtree(root)
    nudges.settle()
    assert nudges.after(root.mkdir) < 1
    nudges.settle()
    assert nudges.after(lambda: (root / "web.yaml").write_text("x")) < AT_ONCE_S


def test_a_root_that_was_replaced_is_watched_again(root: Path, watch: Watch, nudges: Nudges) -> None:
    (root.parent / "other").mkdir()
    root.rename(root.parent / "elsewhere")
    nudges.after(lambda: (root.parent / "other").rename(root))
    nudges.settle()
    assert nudges.after(lambda: (root / "web.yaml").write_text("x")) < AT_ONCE_S


def test_a_link_as_the_source_is_followed_to_where_it_leads_now(root: Path, nudges: Nudges) -> None:
    link, other = root.parent / "current", root.parent / "other"
    other.mkdir()
    link.symlink_to(root)
    watch = DirectorySource(str(link)).watch(nudges)
    try:
        (root.parent / "tmp").symlink_to(other)
        assert nudges.after(lambda: (root.parent / "tmp").rename(link)) < 1
        nudges.settle()
        assert nudges.after(lambda: (other / "web.yaml").write_text("x")) < AT_ONCE_S
    finally:
        watch.close()


def test_a_source_may_be_missing_at_first_and_one_file(tmp_path: Path, nudges: Nudges) -> None:
    path = tmp_path / "web.yaml"
    watch = DirectorySource(str(path)).watch(nudges)
    try:
        assert nudges.after(lambda: path.write_text("a")) < 1
        nudges.settle()
        assert nudges.after(lambda: path.write_text("b")) < AT_ONCE_S
        nudges.settle()
        (tmp_path / "other.yaml").write_text("x")
        time.sleep(QUIET_S)
        assert nudges.times == []
    finally:
        watch.close()


def test_an_overflow_of_the_kernels_queue_is_a_reason_and_loses_no_directory(
    root: Path, nudges: Nudges
) -> None:
    stuck, limit = threading.Event(), int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    def nudge() -> None:
        stuck.wait(60)
        nudges()

    watch = DirectorySource(str(root)).watch(nudge)
    try:
        for number in range(limit // 2 + 10):  # two events each at least
            (root / f"f{number % 100}").touch()
            (root / f"f{number % 100}").unlink()
        (root / "unseen").mkdir()
        nudges.after(stuck.set)
        nudges.settle()
        assert nudges.after(lambda: (root / "unseen/web.yaml").write_text("x")) < AT_ONCE_S
    finally:
        stuck.set()
        watch.close()


WITHOUT_INOTIFY = """
import sys, threading, time
from controller.sources.directory import DirectorySource
open("/proc/sys/user/max_inotify_instances", "w").write("0")
woken = threading.Event()
watch = DirectorySource(sys.argv[1]).watch(woken.set)
print(watch.degraded, flush=True)
assert woken.wait(5)
open("/proc/sys/user/max_inotify_instances", "w").write("100"); woken.clear()
assert woken.wait(5)
time.sleep(2); woken.clear()
assert not woken.wait(2)
print("healed" if watch.degraded == "" else watch.degraded)
watch.close()
"""


def test_without_inotify_it_looks_every_second_and_says_so(root: Path) -> None:
    """In a user namespace of its own, whose limits are its own."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", WITHOUT_INOTIFY, str(root)]
    done = subprocess.run(
        command, cwd=HOME, capture_output=True, text=True, timeout=30, check=False, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    degraded, healed = done.stdout.splitlines()
    assert degraded.endswith("; looking every 1 s instead"), degraded
    assert healed == "healed"


def test_closing_is_final_and_leaves_neither_descriptor_nor_thread(root: Path, nudges: Nudges) -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(30):
        DirectorySource(str(root)).watch(nudges).close()
    nudges.times.clear()
    (root / "web.yaml").write_text("x")
    time.sleep(QUIET_S)
    assert nudges.times == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


def test_watchdog_is_loaded_by_watching_alone(root: Path) -> None:
    script = (
        "import sys; from controller.sources.directory import DirectorySource as D; D(sys.argv[1]).snapshot()"
    )
    script += "; sys.exit('watchdog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(root)], cwd=HOME, timeout=30, check=False)
    assert done.returncode == 0
