"""What the keeper writes and `masu logs` reads: parts, disks that are full, files that somebody took away."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.host import logs

KEEPER = Path(logs.__file__).parent / "keeper"


@pytest.fixture(scope="module")
def keeper() -> Iterator[Any]:
    """The keeper's modules, which belong to no package."""
    sys.path.insert(0, str(KEEPER))
    try:
        yield importlib.import_module("logbook")
    finally:
        sys.path.remove(str(KEEPER))
        for each in ("logbook", "unwritten", "proc"):
            sys.modules.pop(each, None)


def stream_of(
    keeper: Any, place: Path, read: int, book: Any, name: bytes = b"stdout", *, goes_on: bool = False
) -> Any:
    unwritten = importlib.import_module("unwritten")
    kept, mapped = unwritten.Rest(f"{place}/rest"), unwritten.Unwritten(f"{place}/unwritten", 0)
    return keeper.Stream(b"web/" + name, read, book, kept, mapped, goes_on=goes_on)


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
    book.make_ready()
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
        stream = stream_of(keeper, tmp_path, read, book, goes_on=goes_on)
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


def test_a_line_ends_with_the_run_however_much_the_other_stream_has_written_since(
    keeper: Any, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    book = keeper.Logbook(f"{tmp_path}/web", 1 << 20, 3)
    stream = stream_of(keeper, tmp_path, pipe[0], book)
    os.write(pipe[1], b"half")
    stream.drain()
    stream._change(stream._lines.flush)
    book.write(b"stderr", [(b"F", b"x" * 1000)] * 100)
    stream_of(keeper, tmp_path, pipe[0], book)
    os.write(pipe[1], b"next\n")
    stream_of(keeper, tmp_path, pipe[0], book).drain()
    assert [each for each in _shown(tmp_path) if not each.startswith("x")] == ["half\n", "next\n"]
    book.close()


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 32768, 32769, 100_000])
def test_long_lines_are_cut_and_joined(keeper: Any, tmp_path: Path, pipe: tuple[int, int], size: int) -> None:
    book = keeper.Logbook(f"{tmp_path}/web", 1 << 20, 3)
    stream = stream_of(keeper, tmp_path, pipe[0], book)
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


DIES = """
import os, select, sys
sys.path.insert(0, sys.argv[1])
import logbook, proc, unwritten
place, owner, moment = sys.argv[2:5]

def die_at_the_moment():
    where = {"Lines": logbook.Lines, "Rest": unwritten.Rest, "Unwritten": unwritten.Unwritten, "os": os}[owner]
    name, after = moment.strip("+"), "+" in moment
    real = getattr(where, name)

    def call(*arguments, **named):
        if after:
            real(*arguments, **named)
        os._exit(9)

    setattr(where, name, call)
"""
KILLED = (
    DIES
    + """
more, deed, begun = sys.argv[5:8]
os.makedirs(place + "/run/pipes", exist_ok=True)
known = {"pid": 0, "started": 0, "members": "/x", "pid_file": "", "pipes": []}
known["log"] = {"max_bytes": 1 << 20, "files": 3}
proc.write_json(place + "/run/pipes/web.json", known)
read, write = os.pipe()
book = logbook.Logbook(place + "/logs/web", 1 << 20, 3)
kept, mapped = unwritten.Rest(place + "/run/pipes/web.stdout"), unwritten.Unwritten(place + "/run/unwritten", 0)
stream = logbook.Stream(b"web/stdout", read, book, kept, mapped, goes_on=False)
os.write(write, b"one\\ntw")
stream.drain()
logbook.UNFINISHED_S = 0
if begun:
    stream.flush()
    book.write(b"stderr", [(b"F", b"x" * 1000)] * 100)
os.write(write, more.replace("@", "\\0").encode())
die_at_the_moment()
getattr(stream, deed)()
"""
)
TAKES_OVER = """
import os, select, sys
sys.path.insert(0, sys.argv[1])
from containers import Containers
place, pid = sys.argv[2], int(sys.argv[3])
for predecessor in (pid, os.getpid()):  # the second finds nothing to do
    containers = Containers(place + "/run", place + "/logs", select.epoll(), predecessor)
    containers.write_what_is_left()
    containers.take_over()
"""
HEIR = (
    DIES
    + """
from containers import Containers
containers = Containers(place + "/run", place + "/logs", select.epoll(), int(sys.argv[5]))
die_at_the_moment()
containers.write_what_is_left()
"""
)
MOMENTS = [
    ("Lines", "take"),
    ("os", "write"),
    ("os", "write+"),
    ("Lines", "take+"),
    ("Rest", "keep+"),
    ("Unwritten", "end"),
    ("Unwritten", "end+"),
]


def killed(
    place: Path,
    owner: str,
    moment: str,
    more: str = "o\nthree\nfo@",
    deed: str = "drain",
    *,
    begun: bool = False,
) -> int:
    """A keeper that has written "one", and was then killed at a moment of what it did next. → its pid.

    `begun`: "tw" is in the log, long before its end.
    """
    argv = [sys.executable, "-c", KILLED, str(KEEPER), str(place), owner, moment, more, deed, "x" * begun]
    with subprocess.Popen(argv) as process:
        assert process.wait(30) == 9
    return process.pid


def taken_over(place: Path, predecessor: int) -> list[str]:
    """What is in the log after that."""
    argv = [sys.executable, "-c", TAKES_OVER, str(KEEPER), str(place), str(predecessor)]
    subprocess.run(argv, timeout=30, check=True)
    return _shown(place / "logs")


@pytest.mark.parametrize(("owner", "moment"), [*MOMENTS, ("os", "replace")])
def test_killed_between_pipe_and_log_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, owner: str, moment: str
) -> None:
    """`moment`: what it is killed before, or after (+)."""
    assert taken_over(tmp_path, killed(tmp_path, owner, moment)) == ["one\n", "two\n", "three\n", "fo\0\n"]


@pytest.mark.parametrize(("owner", "moment"), [*MOMENTS, ("os", "unlink")])
def test_the_beginning_of_a_line_is_not_there_again_when_its_end_has_come(
    tmp_path: Path, owner: str, moment: str
) -> None:
    assert taken_over(tmp_path, killed(tmp_path, owner, moment, "@o\n")) == ["one\n", "tw\0o\n"]


@pytest.mark.parametrize(("owner", "moment"), MOMENTS)
@pytest.mark.parametrize("more", ["@", "@o\n"])
def test_killed_in_a_line_whose_beginning_is_far_back_in_the_log(
    tmp_path: Path, owner: str, moment: str, more: str
) -> None:
    shown = taken_over(tmp_path, killed(tmp_path, owner, moment, more, begun=True))
    assert [each for each in shown if not each.startswith("x")] == ["one\n", f"tw\0{more[1:] or chr(10)}"]


@pytest.mark.parametrize("deed", ["flush", "finish"])
@pytest.mark.parametrize(("owner", "moment"), [each for each in MOMENTS if each[1] not in {"take", "take+"}])
def test_killed_while_it_writes_what_has_waited(tmp_path: Path, owner: str, moment: str, deed: str) -> None:
    """What is in the pipe then is not this keeper's: nobody has it any more."""
    assert taken_over(tmp_path, killed(tmp_path, owner, moment, deed=deed)) == ["one\n", "tw\n"]


@pytest.mark.parametrize(("owner", "moment"), [*MOMENTS, ("os", "ftruncate"), ("os", "ftruncate+")])
def test_the_next_one_is_killed_as_well_before_it_has_written_what_was_left(
    tmp_path: Path, owner: str, moment: str
) -> None:
    """It has not named itself yet, so what the first has left still counts for the third."""
    first = killed(tmp_path, "Unwritten", "end")
    argv = [sys.executable, "-c", HEIR, str(KEEPER), str(tmp_path), owner, moment, str(first)]
    assert subprocess.run(argv, timeout=30, check=False).returncode == 9
    assert taken_over(tmp_path, first) == ["one\n", "two\n", "three\n", "fo\0\n"]


def test_a_log_that_was_taken_away_meanwhile_has_it_all_the_same(tmp_path: Path) -> None:
    predecessor = killed(tmp_path, "Unwritten", "end")
    other, log = tmp_path / "other", tmp_path / "logs/web/current.log"
    other.write_text("2026-01-02T03:04:05.000000001Z stdout F another\n" * 9)
    other.rename(log)
    assert taken_over(tmp_path, predecessor) == [*["another\n"] * 9, "two\n", "three\n", "fo\0\n"]


def test_what_another_keeper_than_the_last_has_left_is_old(tmp_path: Path) -> None:
    """As after one that found no room to do so."""
    killed(tmp_path, "Unwritten", "end")
    with (tmp_path / "logs/web/current.log").open("a") as file:
        file.write("2026-01-02T03:04:05.000000001Z stdout F later\n")
    assert taken_over(tmp_path, 1)[:4] == ["one\n", "two\n", "three\n", "later\n"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"log": 1}'])
def test_what_cannot_be_understood_keeps_no_keeper_from_its_work(tmp_path: Path, text: str) -> None:
    predecessor = killed(tmp_path, "Unwritten", "end")
    (tmp_path / "run/pipes/web.json").write_text(text)
    assert taken_over(tmp_path, predecessor) == ["one\n", "two\n", "three\n"]
