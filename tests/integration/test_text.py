"""Small reads: what is absent, and what only could not be read."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.text import make_private, read_text, write_atomic


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "missing", tmp_path / "file" / "below", Path("/proc/0/stat")):
        assert read_text(str(path)) is None


def test_a_private_directory_is_so_however_it_was_made(tmp_path: Path) -> None:
    for path, before in ((tmp_path / "old", 0o711), (tmp_path / "deep" / "new", None)):
        if before is not None:
            path.mkdir(before)
        make_private(str(path))
        assert path.stat().st_mode & 0o7777 == 0o700


def test_too_many_open_files_do_not_look_like_absence(tmp_path: Path) -> None:
    """Or a container that runs would be taken for one that has ended."""
    (tmp_path / "file").write_text("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(StepFailed, match="errno 24"):
            read_text(str(tmp_path / "file"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read_text(str(tmp_path / "file")) == "x"


def test_of_many_writers_at_once_one_wins_and_none_fails(tmp_path: Path) -> None:
    path = tmp_path / "state" / "file"
    texts = [str(number) * 10_000 for number in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        for _ in range(20):
            for done in [pool.submit(write_atomic, str(path), each, durable=False) for each in texts]:
                done.result(10)
            assert path.read_text() in texts
    assert os.listdir(path.parent) == ["file"]
