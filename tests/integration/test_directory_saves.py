"""What a snapshot of a directory holds while somebody saves: whole texts, and no file that seems removed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from controller.model.snapshot import Snapshot
from controller.sources.directory import SETTLED_NS, DirectorySource
from controller.sources.walk import MAX_BYTES


def texts(snapshot: Snapshot, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.path, root): each.text.decode() for each in snapshot.files}


def wrong(snapshot: Snapshot, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.file, root): each.message for each in snapshot.unreadable}


def test_a_file_written_in_two_halves_is_never_half(tmp_path: Path) -> None:
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    path.write_text("before")
    source.snapshot()
    with path.open("w") as file:
        assert texts(source.snapshot(), tmp_path) == {"web.yaml": "before"}
        file.write("first half, ")
        file.flush()
        time.sleep(2 * SETTLED_NS / 1e9)
        assert texts(source.snapshot(), tmp_path) == {"web.yaml": "before"}
        file.write("second half")
    assert texts(source.snapshot(), tmp_path) == {"web.yaml": "first half, second half"}


def test_a_file_being_written_that_was_never_read_is_named_and_not_silently_absent(tmp_path: Path) -> None:
    """After a restart, absence would mean removal."""
    path = tmp_path / "web.yaml"
    source = DirectorySource(str(tmp_path))
    with path.open("w") as file:
        file.write("half")
        file.flush()
        snapshot = source.snapshot()
        assert texts(snapshot, tmp_path) == {}
        assert "open for writing" in wrong(snapshot, tmp_path)["web.yaml"]
    assert texts(source.snapshot(), tmp_path) == {"web.yaml": "half"}


def test_a_new_file_that_is_being_written_is_no_problem(tmp_path: Path) -> None:
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    source.snapshot()
    with path.open("w") as file:
        file.write("half")
        file.flush()
        assert (source.snapshot().files, source.snapshot().unreadable) == ((), ())
    assert texts(source.snapshot(), tmp_path) == {"web.yaml": "half"}


def test_a_file_is_not_new_because_it_could_not_be_read_before(tmp_path: Path) -> None:
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert "larger" in wrong(source.snapshot(), tmp_path)["web.yaml"]
    with path.open("w"):
        for _ in range(2):
            assert "open for writing" in wrong(source.snapshot(), tmp_path)["web.yaml"]


def test_many_snapshots_beside_a_busy_writer_see_whole_texts_only(tmp_path: Path) -> None:
    source, path, stop = DirectorySource(str(tmp_path)), tmp_path / "web.yaml", threading.Event()
    path.write_text("0" * 5000)
    source.snapshot()

    def write() -> None:
        for number in range(10**6):
            with path.open("w") as file:
                for _ in range(50):
                    file.write(str(number % 10) * 100)
                    file.flush()
            if stop.wait(0.0005):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [each for _ in range(400) for each in texts(source.snapshot(), tmp_path).values()]
    finally:
        stop.set()
        writer.join(10)
    assert len(seen) == 400
    assert {(len(each), len(set(each))) for each in seen} == {(5000, 1)}


@pytest.mark.parametrize(("gap_s", "rest_s", "looks"), [(0, 0.0002, 3000), (0.005, 0.01, 60)])
def test_a_save_that_moves_the_old_file_away_first_is_no_removal(
    tmp_path: Path, gap_s: float, rest_s: float, looks: int
) -> None:
    """vim: writes 4913, renames to a backup, writes anew, removes the backup. No look may find the file missing."""
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    path.write_text("0")
    source.snapshot()
    stop = threading.Event()

    def save() -> None:
        number = 0
        while not stop.wait(rest_s):
            number += 1
            (tmp_path / "4913").touch()
            (tmp_path / "4913").unlink()
            path.rename(tmp_path / "web.yaml~")
            time.sleep(gap_s)
            path.write_text(str(number))
            (tmp_path / "web.yaml~").unlink()

    editor = threading.Thread(target=save)
    editor.start()
    try:
        seen = [source.snapshot() for _ in range(looks)]
    finally:
        stop.set()
        editor.join(10)
    assert [each for each in seen if each.unreadable or list(texts(each, tmp_path)) != ["web.yaml"]] == []
    assert all(each.files[0].text.isdigit() for each in seen)


def test_an_edit_of_the_same_size_at_once_is_seen(tmp_path: Path) -> None:
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    for number in range(200):
        path.write_text(f"{number:04}")
        assert texts(source.snapshot(), tmp_path) == {"web.yaml": f"{number:04}"}
