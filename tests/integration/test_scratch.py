"""Scratch directories: in memory, for root alone, bounded, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.scratch import ScratchDirectories

pytestmark = pytest.mark.root
NOBODY = 65534


@pytest.fixture(params=["disk", "memory"])
def base(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """On a disk, and on a tmpfs as /run mostly is; below directories that everybody may pass."""
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    found = tmp_path / "run"
    found.mkdir(mode=0o711)
    if request.param == "memory":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "masu-test", found], check=True)
    yield found / "scratch"
    for below in (*found.glob("scratch/*"), found):
        while os.path.ismount(below):
            subprocess.run(["umount", "--lazy", below], check=True)


def test_nobody_else_sees_what_is_in_it(base: Path) -> None:
    """Also not where the directory above was there before, with a wider mode, and the file's own mode is wide."""
    base.mkdir(mode=0o755)
    found = ScratchDirectories(str(base))
    images = Path(found.make("web", 1 << 20))
    assert (base / "web").is_mount()
    page = images / "pages-1.img"
    page.write_bytes(b"secret")
    images.chmod(0o711)
    page.chmod(0o644)
    seen = subprocess.run(["cat", page], check=False, capture_output=True, user=NOBODY)
    assert (seen.returncode, seen.stdout) == (1, b"")
    assert b"Permission denied" in seen.stderr


def test_it_holds_no_more_than_is_free(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ScratchDirectories(str(base))
    available = 1024 * int(
        next(
            line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line
        ).split()[1]
    )
    assert found.room("") == pytest.approx(available * 15 / 16, rel=0.2)
    monkeypatch.setattr(found, "room", lambda _: 1 << 20)
    images = Path(found.make("web", 1 << 19))
    with pytest.raises(OSError, match="No space left"):
        (images / "pages-1.img").write_bytes(bytes(2 << 20))
    with pytest.raises(StepFailed, match=r"2097152 bytes are needed in memory, and 1048576 are free"):
        found.make("web", 2 << 20)
    assert found.names() == frozenset()


def test_each_holds_what_it_was_made_for_and_a_little_more(base: Path) -> None:
    """And what is promised to one is not promised to another, until it is used: then it is not there any more."""
    found = ScratchDirectories(str(base))
    before = found.room("")
    need = before // 4
    sizes = {}
    for name in ("web", "db"):
        found.make(name, need)
        seen = os.statvfs(base / name)
        sizes[name] = seen.f_blocks * seen.f_frsize
        assert need + need // 8 < sizes[name] < need + need // 2
    assert found.room("") == pytest.approx(before - sum(sizes.values()), rel=0.2)
    with pytest.raises(StepFailed, match="are needed in memory"):
        found.make("third", before - sizes["web"])
    Path(found.images("db"), "pages-1.img").write_bytes(bytes(256 << 20))
    assert found.room("") == pytest.approx(before - sum(sizes.values()), rel=0.2)
    for name in ("web", "db"):
        found.remove(name)
    assert found.room("") == pytest.approx(before, rel=0.2)


def test_what_was_there_is_gone_and_nothing_stays(base: Path) -> None:
    """Also from under somebody who has it open, and the leftovers of a masu that was killed at any moment."""
    found = ScratchDirectories(str(base))
    Path(found.make("web", 0), "old").write_text("x")
    found.note("web", "key", "text")
    assert os.listdir(found.make("web", 0)) == []
    assert found.noted("web", "key") == ""
    (base / "half").mkdir()
    assert found.names() == {"web", "half"}
    with (Path(found.images("web")) / "open").open("w"):
        for name in ("web", "half", "never"):
            found.remove(name)
    assert not base.exists()
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


def test_what_is_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "web").write_text("no directory")
    with pytest.raises(StepFailed, match=r"scratch/web"):
        ScratchDirectories(str(tmp_path / "scratch")).make("web", 0)
