"""What the keeper writes and `masu logs` reads: parts, disks that are full, files that somebody took away."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.host import logs

KEEPER = Path(logs.__file__).parent / "keeper"


@pytest.fixture(scope="module")
def keeper() -> Any:
    """The keeper's module, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("keeper_logbook", KEEPER / "logbook.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def _shown(directory: Path, tail: int = -1) -> list[str]:
    return [line.text for line in logs.lines(str(directory), "web", tail=tail, follow=False)]


def test_a_directory_that_cannot_be_made_loses_lines_and_says_how_many(keeper: Any, tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.write_text("a file where a directory should be")
    book = keeper.Logbook(f"{place}/web", 1 << 20, 3)
    book.write(b"stdout", [(b"F", b"one"), (b"F", b"two")])
    place.unlink()
    book.write(b"stdout", [(b"F", b"three")])
    book.close()
    assert _shown(place) == ["masu: 2 lines were lost: no space was left for the log\n", "three\n"]


def test_a_log_that_was_taken_away_begins_anew_when_it_would_be_rotated(keeper: Any, tmp_path: Path) -> None:
    book = keeper.Logbook(f"{tmp_path}/web", 100, 3)
    shutil.rmtree(tmp_path / "web")
    book.write(b"stdout", [(b"F", b"x" * 200)])
    book.write(b"stdout", [(b"F", b"more")])
    assert _shown(tmp_path) == ["more\n"]
    book.close()


def test_a_line_goes_on_with_the_next_reader_and_ends_with_the_next_run(
    keeper: Any, tmp_path: Path, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "UNFINISHED_S", 0)
    read, write = pipe
    book = keeper.Logbook(f"{tmp_path}/web", 1 << 20, 3)
    for number, goes_on in enumerate((False, True, False)):
        stream = keeper.Stream(b"stdout", read, book, goes_on=goes_on)
        os.write(write, b"%d" % number)
        assert stream.drain()
        assert stream.waits
        assert stream.flush()
    book.write(b"stderr", [(b"F", b"between")])
    assert _shown(tmp_path) == ["01\n", "between\n", "2"]
    assert _shown(tmp_path, 1) == ["2"]
    os.write(write, b"\n")
    stream.drain()
    stream.finish()
    assert _shown(tmp_path) == ["01\n", "between\n", "2\n"]
    book.close()


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 32768, 32769, 100_000])
def test_long_lines_are_cut_and_joined(keeper: Any, tmp_path: Path, pipe: tuple[int, int], size: int) -> None:
    book = keeper.Logbook(f"{tmp_path}/web", 1 << 20, 3)
    stream = keeper.Stream(b"stdout", pipe[0], book, goes_on=False)
    for at in range(0, size, 30_000):
        os.write(pipe[1], b"x" * min(30_000, size - at))
        stream.drain()
    os.write(pipe[1], b"\nnext\n")
    stream.drain()
    assert _shown(tmp_path) == ["x" * size + "\n", "next\n"]
    book.close()


def test_the_last_lines_are_the_last_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the end, in blocks that cut lines anywhere, across rotated files."""
    monkeypatch.setattr(logs, "BLOCK", 100)
    monkeypatch.setattr(logs, "MARGIN", 3)
    directory = tmp_path / "web"
    directory.mkdir()
    for name, numbers in (
        ("current.log.2", range(40)),
        ("current.log.1", range(40, 60)),
        ("current.log", range(60, 75)),
    ):
        (directory / name).write_text(
            "".join(f"2026-01-02T03:04:05.{number:09}Z stdout F übung {number} F \n" for number in numbers)
        )
    whole = _shown(tmp_path)
    assert len(whole) == 75
    for tail in (0, 1, 2, 14, 15, 16, 35, 74, 75, 76, 1000):
        assert _shown(tmp_path, tail) == whole[len(whole) - min(tail, 75) :], tail
