"""The keeper in trouble: killed in the middle of a launch, out of descriptors, out of space."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, container, until

COUNT = 8000
FLOOD = f"echo begin; i=0; while [ $i -lt {COUNT} ]; do i=$((i+1)); echo line $i {'x' * 60}; done; echo end; "
QUIETLY = {"rootfs": {"writable": "readOnly"}}
SIGCANCEL = 32
"""libc's own, which its posix_spawn(3) leaves ignored in whoever is started by a program with threads."""


def test_killed_during_a_launch_the_log_is_whole_and_the_end_is_known(either: Masu) -> None:
    """The runtime goes on without its keeper; what it starts writes more than a pipe can hold."""
    masu = either
    masu.write(container("base"))
    masu.start()
    masu.running("base")
    script = FLOOD + "sleep 2; exit 7"
    masu.write(
        container("base"),
        container(process={"args": ["/bin/sh", "-c", script]}, restart={"policy": "never"}),
    )
    _kill_while_a_runtime_runs(masu.keeper(), masu.runtime)
    masu.running()
    lines = until(lambda: _complete(masu), f"a whole log; {_lines(masu)[-1:]}")
    assert [line.split()[1] for line in lines] == [str(number) for number in range(1, COUNT + 1)]
    assert masu.status()["converged"]
    until(lambda: masu.status().get("exitCode") == 7, f"the exit code is known: {masu.status()}")


@pytest.mark.parametrize("policy", ["never", "on-failure", "always"])
def test_how_a_container_ends_while_there_is_no_keeper_is_known(masu: Masu, policy: str) -> None:
    """The keeper stands still while it ends, and is killed before it has waited for it: the host's pid 1 does."""
    script = "until [ -e /go ]; do sleep 0.02; done; rm /go; exit 7"
    again = {"policy": policy, "backoff": {"initial": "30s"}}
    masu.write(container(process={"args": ["/bin/sh", "-c", script]}, restart=again))
    masu.start()
    first, keeper = masu.running(), masu.keeper()
    os.kill(keeper, signal.SIGSTOP)
    Path(f"/proc/{first}/root/go").touch()
    until(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "ended")
    os.kill(keeper, signal.SIGKILL)
    until(lambda: masu.status().get("exitCode") is not None, "it is told")
    assert masu.status()["exitCode"] == 7
    until(lambda: masu.keeper() not in {0, keeper}, "replaced")
    assert (masu.pid() not in {0, first}) == (policy != "never")


def test_a_keeper_that_finds_half_a_launch_is_told_who_init_is(masu: Masu) -> None:
    """Controller and keeper are killed between the runtime's start and the record of its pid."""
    script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 7"
    masu.write(container(process={"args": ["/bin/sh", "-c", script]}, restart={"policy": "never"}))
    assert masu.apply().returncode == 0
    pid = masu.pid()
    _pretend_the_launch_was_cut_short(masu)
    pipes = Path(f"/run/masu/{masu.instance}/keeper/pipes/web.json")
    pipes.write_text(json.dumps({**json.loads(pipes.read_text()), "pid": 0, "started": 0, "pid_file": "/no"}))
    assert masu.apply().returncode == 0
    assert masu.pid() == pid, "adopted"
    until(lambda: masu.status().get("exitCode") == 7, f"the exit code is known: {masu.status()}")
    assert _lines(masu) == [str(number) for number in range(1, 61)]


def test_what_no_keeper_can_listen_to_is_started_again(masu: Masu) -> None:
    """A live init whose pipes nobody knows would stand still for ever once they are full."""
    masu.write(container(process={"args": ["/bin/sh", "-c", "echo $((1 + 1)); exec sleep 100000"]}))
    assert masu.apply().returncode == 0
    pid = masu.pid()
    _pretend_the_launch_was_cut_short(masu)
    Path(f"/run/masu/{masu.instance}/keeper/pipes/web.json").unlink()
    assert masu.apply().returncode == 0
    assert masu.pid() not in {0, pid}
    assert masu.processes() == [masu.pid()]
    until(lambda: _lines(masu)[-1:] == ["2"], "its log")


def test_out_of_descriptors_nothing_leaks_and_launches_succeed_later(masu: Masu) -> None:
    masu.write(container("base"))
    masu.start()
    masu.running("base")
    keeper = masu.keeper()
    time.sleep(0.5)  # the controller has connected
    before = _open_files(keeper)
    limits = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (max(before) + 4, limits[1]))
    masu.write(container("base"), *[container(f"new{number}") for number in range(4)])
    until(lambda: masu.status("new0").get("conditions"), "the launch fails")
    time.sleep(1)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, limits)
    for number in range(4):
        masu.running(f"new{number}", 30)
    assert masu.keeper() == keeper, "it lives"
    wanted = len(before) + 4 * 3  # two pipes and a log for each
    until(lambda: len(_open_files(keeper)) == wanted, f"{wanted} open files, not {_open_files(keeper)}")


def test_limits_of_open_files(masu: Masu) -> None:
    """Controller and keeper take what they may; a container gets what it would have got without them."""
    masu.write(container(process={"args": ["/bin/sh", "-c", "ulimit -n; exec sleep 100000"]}))
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    masu.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    masu.running()
    assert masu.daemon
    for pid in (masu.daemon.pid, masu.keeper()):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
    until(lambda: _lines(masu) == ["1000"], "what the container sees")


def test_a_container_starts_with_all_signals_as_they_are_by_default(masu: Masu) -> None:
    """The keeper handles some, Python ignores others, and whoever started masu perhaps even one of libc's own."""
    masu.write(container(process={"args": ["/bin/sleep", "100000"]}))
    with _ignored(SIGCANCEL):
        assert masu.apply().returncode == 0
    words = dict(line.split(":", 1) for line in Path(f"/proc/{masu.pid()}/status").read_text().splitlines())
    masks = {key: int(words[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt")}
    assert masks == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


@contextlib.contextmanager
def _ignored(number: int) -> Iterator[None]:
    """By this process, and what it starts: rt_sigaction(2), since libc refuses those that it uses itself."""
    call = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
    libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(8)
    assert libc.syscall(call, number, (1).to_bytes(8, sys.byteorder) + bytes(56), before, size) == 0
    try:
        yield
    finally:
        libc.syscall(call, number, before, None, size)


def test_without_inodes_the_keeper_lives_and_other_logs_go_on(masu: Masu) -> None:
    state = Path(f"/var/lib/masu/{masu.instance}")
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=100", "masu-test", state], check=True)
    try:
        _run_out_of_inodes(masu, state)
    finally:
        masu.run("down", "--all", "--wait", "20s")
        masu.stop()
        subprocess.run(["umount", "-l", state], check=True)


def _run_out_of_inodes(masu: Masu, state: Path) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"
    counts = container(process={"args": ["/bin/sh", "-c", script]})
    masu.write(counts)
    masu.start()
    pid, keeper = masu.running(), masu.keeper()
    until(lambda: _lines(masu), "its log has been begun")
    fillers = _take_all_inodes(state)
    said = {"args": ["/bin/sh", "-c", "while :; do echo said; sleep 0.1; done"]}
    late = [container(f"late{number}", process=said, **QUIETLY) for number in range(3)]
    masu.write(counts, *late)
    firsts = [masu.running(f"late{number}") for number in range(3)]
    time.sleep(1)
    for path in fillers:
        path.unlink()
    until(lambda: "were lost" in masu.run("logs", "late0").stdout, "what is lost is said")
    until(lambda: "said" in masu.run("logs", "late0").stdout.splitlines()[-1:], "then the log goes on")
    assert [masu.pid(f"late{number}") for number in range(3)] == firsts, "started once"
    assert (masu.keeper(), masu.pid()) == (keeper, pid)
    numbers = [int(line) for line in _lines(masu)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_unfinished_line_survives_the_keeper(masu: Masu) -> None:
    """A prompt, or a line that is written bit by bit."""
    script = "printf out; printf err >&2; sleep 2; echo put; echo or >&2; printf last; sleep 1"
    masu.write(container(process={"args": ["/bin/sh", "-c", script]}, restart={"policy": "never"}))
    masu.start()
    masu.running()
    until(lambda: masu.run("logs", "web").stdout == "out", "shown before it is finished")
    keeper = masu.keeper()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: masu.keeper() != keeper, "replaced")
    until(lambda: masu.run("logs", "web").stdout.endswith("last"), "shown, too")
    assert masu.run("logs", "-n", "1", "web").stdout == "last"
    keeper = masu.keeper()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: masu.run("logs", "web").stdout.endswith("last\n"), "finished with the pipe")
    done = masu.run("logs", "web")
    assert (done.stdout, done.stderr) == ("output\nlast\n", "error\n")
    assert len(masu.run("logs", "-t", "web").stdout.splitlines()) == 2
    said = [each["message"] for each in masu.events() if each["type"] == "KeeperReplaced"]
    assert len(said) == 2, said
    assert said[0].endswith("looks after 1 container")


def _pretend_the_launch_was_cut_short(masu: Masu) -> None:
    """No keeper, and a record that has not heard of init."""
    keeper = masu.keeper()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{keeper}/fd/0").exists(), "gone")
    record = Path(f"/run/masu/{masu.instance}/records/web.json")
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "phase": "launching", "pid": 0, "start_time": 0}))


def _kill_while_a_runtime_runs(keeper: int, name: str) -> None:
    """The runtime is stopped meanwhile, so that it is not ready before the keeper has ended.

    It lives for some ten milliseconds: whoever slept between two looks would miss it.
    """
    deadline = time.monotonic() + 10
    while not (runtime := _child(keeper, name)):
        assert time.monotonic() < deadline, "a runtime was not seen"
    os.kill(runtime, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    os.kill(runtime, signal.SIGCONT)


def _child(parent: int, name: str) -> int:
    for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            if Path(f"/proc/{word}/comm").read_text() == f"{name}\n":
                return int(word)
        except OSError:
            continue
    return 0


def _complete(masu: Masu) -> list[str]:
    """The lines of the last run, once it has said that these are all."""
    *lines, last = [*_lines(masu), ""][:-1] or [""]
    begin = max((at for at, line in enumerate(lines) if line == "begin"), default=-1)
    return lines[begin + 1 :] if last == "end" and begin >= 0 else []


def _take_all_inodes(directory: Path) -> list[Path]:
    taken: list[Path] = []
    try:
        while True:
            path = directory / f"filler{len(taken)}"
            path.touch()
            taken.append(path)
    except OSError:
        return taken


def _open_files(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()]


def _lines(masu: Masu) -> list[str]:
    return masu.run("logs", "web").stdout.splitlines()
