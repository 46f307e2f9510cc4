"""kill -9 at every point of storing and sweeping: what was listed stays whole, and the next one goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin
from tests.images import pages, read_all, write_images

CHECKOUT = Path(__file__).parents[2]
COUNT = 400
RUNS = [(0x7F00_0000_0000, COUNT)]
STAGES_OF_SAVING = (
    "read",
    "pack written",
    "pack synced",
    "pack named",
    "manifest written",
    "manifest synced",
    "manifest named",
    "published",
)
STAGES_OF_SWEEPING = (
    "manifests removed",
    "moved: pack written",
    "moved: pack synced",
    "moved: pack named",
    "pack swept",
)
ACT = """
import os, signal, sys
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin
root, what, stage, images = sys.argv[1:5]
def did(done, amount):
    if done == stage:
        os.kill(os.getpid(), signal.SIGKILL)
store = LocalStore(root, "")
print("ready", flush=True)
if what == "save":
    store.save(Draft(Origin("web", 1_764_100_001_000, "manual"), images), 0, did)
else:
    store.remove([store.checkpoints("")[0].id], did)
"""


def quiet(_what: str, _amount: int) -> None:
    return


def _act(root: Path, what: str, stage: str, images: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    argv = [sys.executable, "-c", ACT, str(root), what, stage, str(images)]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", RUNS, pages(COUNT, 1))


@pytest.fixture
def store(tmp_path: Path, images: Path) -> LocalStore:
    made = LocalStore(str(tmp_path / "store"), "")
    made.save(Draft(Origin("web", 1_764_100_000_000, "manual"), str(images)), 0, quiet)
    return made


def _all_whole(store: LocalStore, tmp_path: Path) -> int:
    listed = store.checkpoints("web")
    for each in listed:
        assert each.damage == ""
        assert store.verify(each.id) == ()
    assert not (tmp_path / "back").exists()
    return len(listed)


def _goes_on(store: LocalStore, tmp_path: Path) -> None:
    """A new one can be stored, comes back, and once all are removed nothing is left."""
    images = write_images(tmp_path / "third", RUNS, pages(COUNT, 3))
    made = store.save(Draft(Origin("web", 1_764_100_002_000, "manual"), str(images)), 0, quiet)
    store.restore(made.id, str(tmp_path / "back"), {}, quiet)
    assert read_all(tmp_path / "back") == read_all(images)
    assert store.remove([each.id for each in store.checkpoints("")], quiet).kept == ""
    left = {each.name for each in (tmp_path / "store").rglob("*") if each.is_file()}
    assert left <= {"lock", "reading"}


@pytest.mark.parametrize("stage", STAGES_OF_SAVING)
def test_killed_while_storing(store: LocalStore, tmp_path: Path, stage: str) -> None:
    others = write_images(tmp_path / "others", RUNS, pages(COUNT, 2))
    acting = _act(tmp_path / "store", "save", stage, others)
    acting.communicate()
    assert acting.returncode == -signal.SIGKILL, "the stage was reached"
    assert _all_whole(store, tmp_path) == (2 if stage in {"manifest named", "published"} else 1)
    _goes_on(store, tmp_path)


@pytest.mark.parametrize("stage", STAGES_OF_SWEEPING)
def test_killed_while_sweeping(store: LocalStore, tmp_path: Path, stage: str) -> None:
    """The second one shares an eighth with the first, so that a pack is rewritten when the first goes."""
    mixed = write_images(tmp_path / "mixed", RUNS, [*pages(COUNT // 8, 1), *pages(COUNT, 2)[COUNT // 8 :]])
    store.save(Draft(Origin("web", 1_764_100_001_000, "manual"), str(mixed)), 0, quiet)
    acting = _act(tmp_path / "store", "remove", stage, mixed)
    acting.communicate()
    assert acting.returncode == -signal.SIGKILL, "the stage was reached"
    assert _all_whole(store, tmp_path) == 1
    store.remove([], quiet)
    assert _all_whole(store, tmp_path) == 1
    _goes_on(store, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(store: LocalStore, tmp_path: Path, seed: int) -> None:
    others = write_images(tmp_path / "others", RUNS, pages(COUNT, 2))
    acting = _act(tmp_path / "store", "save", "", others)
    assert acting.stdout
    acting.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 0.12))
    acting.kill()
    acting.communicate()
    assert _all_whole(store, tmp_path) in {1, 2}
    _goes_on(store, tmp_path)
