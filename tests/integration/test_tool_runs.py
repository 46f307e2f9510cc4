"""Programs of others on a real kernel: what they are given, what is heard of them, and that nobody is left."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.host import tool_runs
from controller.host.pulling import Pulling
from controller.host.tool_runs import Halted, SaidTooMuch, TookTooLong, ToolRuns
from controller.sources.git_process import Git, GitOptions
from controller.sources.git_url import parse


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def runs(pid: str) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_it_is_given_and_what_it_says() -> None:
    ended = ToolRuns().run(shell("cat; echo no >&2; exit 3"), 10, given=b"x" * 200_000)
    assert (ended.status, ended.said, ended.complained) == (3, b"x" * 200_000, b"no\n")
    assert ToolRuns().run(["/no/such/program"], 10).status == 127


def test_of_many_complaints_the_last_ones_are_kept() -> None:
    ended = ToolRuns().run(shell("yes | head -c 300000 >&2; echo fatal >&2"), 10)
    assert len(ended.complained) == tool_runs.MOST_COMPLAINED
    assert ended.complained.endswith(b"y\nfatal\n")


def test_too_much_and_too_long_are_ended() -> None:
    with pytest.raises(SaidTooMuch):
        ToolRuns().run(["yes"], 10, most=1000)
    started = time.monotonic()
    for script in ("sleep 1000", "exec >&- 2>&-; sleep 1000", "yes"):
        with pytest.raises(TookTooLong):
            ToolRuns().run(shell(script), 0.3, most=1 << 40)
    assert time.monotonic() - started < 4


def test_whoever_watches_is_asked_although_it_talks_all_the_time() -> None:
    def enough() -> None:
        raise KeyError

    for script in ("yes", "sleep 1000"):
        with pytest.raises(KeyError):
            ToolRuns().run(shell(script), 10, most=1 << 40, watch=enough)


def test_who_was_left_behind_holds_nobody_up_and_is_ended(tmp_path: Path) -> None:
    left = tmp_path / "left"
    started = time.monotonic()
    ended = ToolRuns().run(shell(f"sleep 1000 & echo $! >{left}; echo done"), 20)
    assert (ended.status, ended.said) == (0, b"done\n")
    assert time.monotonic() - started < 5
    until(lambda: not runs(left.read_text().strip()))


def test_a_group_is_ended_before_its_number_can_be_anybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []
    really = os.killpg

    def killpg(pid: int, number: int) -> None:
        there.append(Path(f"/proc/{pid}").exists())
        really(pid, number)

    monkeypatch.setattr(os, "killpg", killpg)
    runner = ToolRuns()
    assert runner.run(["true"], 10).status == 0
    runner.halt()
    assert there == [True], "once, while it was still to be waited for"


def test_halting_ends_what_runs_and_what_would(tmp_path: Path) -> None:
    runner, pid, ends = ToolRuns(), tmp_path / "pid", list[Exception]()

    def run() -> None:
        try:
            runner.run(shell(f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 1000"), 60)
        except Halted as halted:
            ends.append(halted)

    thread = threading.Thread(target=run)
    thread.start()
    until(pid.exists)
    runner.halt()
    thread.join(5)
    assert len(ends) == 1
    with pytest.raises(Halted):
        runner.run(["true"], 10)


def test_all_of_them_use_the_same_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{each}_proxy" for each in ("http", "https", "all", "no")]
    given = {name: f"http://{name}" for low in names for name in (low, low.upper())}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SECRET", "s")
    (tmp_path / "git").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    of_git = Git(str(tmp_path), parse("git+https://127.0.0.1/x"), GitOptions()).run("version")
    for said in (of_git, Pulling().run(["env"], 10)):
        found = dict(line.split("=", 1) for line in said.decode().splitlines())
        assert {name: found[name] for name in given} == given
        assert found["HOME"] == "/nonexistent"
        assert "SECRET" not in found, shlex.join(found)
