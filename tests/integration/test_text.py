"""Small reads: what is absent, and what only could not be read."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.text import read_text


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "missing", tmp_path / "file" / "below", Path("/proc/0/stat")):
        assert read_text(str(path)) is None


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
