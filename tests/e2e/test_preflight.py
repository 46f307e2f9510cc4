"""What keeps a container from being dumped is named before anything is frozen."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.host.criu_obstacles import look, memory
from tests.e2e.harness import Masu, container, until
from tests.e2e.test_checkpoints import counting, done, goes_on
from tests.silent import silent

GHOST = 1 << 20
PROGRAMS = {
    "io_uring": """
import ctypes
params = ctypes.create_string_buffer(120)
assert ctypes.CDLL(None).syscall(425, 4, params) >= 0
""",
    "device": "file = open('/dev/fuse', 'rb+', buffering=0)",
    "ghost": """
import os, tempfile
file = tempfile.TemporaryFile(dir='/var/tmp')
os.posix_fallocate(file.fileno(), 0, 3 << 20)
""",
    "outside": "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])",
    "nothing": """
import os, select, socket
e, p, s = select.epoll(), os.pipe(), socket.socketpair()
f, n, u, t = open('/etc/passwd'), open('/dev/null'), open('/dev/urandom', 'rb'), os.openpty()
m = os.memfd_create('m'); os.ftruncate(m, 8 << 20)
l = socket.create_server(('127.0.0.1', 0))
""",
}
EXPECTED = {
    "io_uring": r"io_uring is open",
    "device": r"device /dev/fuse \(10:229\) is open",
    "ghost": r"/.*, which was removed, is open and larger than 1 MiB",
    "outside": r"a unix socket leads to a process outside the container",
}
SEIZE = "import ctypes, sys; assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0"


@contextmanager
def running(program: str, *arguments: str) -> Iterator[int]:
    script = f"{program}\nprint('ready', flush=True)\nimport time; time.sleep(60)"
    argv = ["python3", "-c", script, *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_what_a_process_holds_is_told_by_its_descriptor(name: str, tmp_path: Path) -> None:
    program, expected = PROGRAMS[name], EXPECTED.get(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        with running(program, str(tmp_path / "socket")) as pid:
            accepted = listening.accept()[0] if name == "outside" else listening
            found = look(pid, frozenset({pid}), GHOST)
            accepted.close()
    said = [each.text for each in found]
    assert len(said) == bool(expected), said
    assert not expected or re.fullmatch(rf"process {pid}, fd \d+: {expected}", said[0]), said


def test_memory_in_common_since_a_fork_is_in_a_dump_for_each() -> None:
    program = (
        "import os; held = bytearray(64 << 20); child = os.fork(); child or os.execlp('sleep', 'sleep', '60')"
    )
    twice = "import os, time; held = bytearray(64 << 20); child = os.fork(); child or time.sleep(60)"
    with running(program) as alone, running(twice) as pid:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        try:
            assert 64 << 20 < memory({alone}) < 100 << 20
            assert 128 << 20 < memory({pid, *map(int, children)}) < 200 << 20
        finally:
            for each in (*children, *Path(f"/proc/{alone}/task/{alone}/children").read_text().split()):
                os.kill(int(each), signal.SIGKILL)


def test_who_is_traced_or_from_elsewhere_is_told() -> None:
    with running("pass") as pid, running("pass") as other:
        with running(SEIZE, str(pid)):
            found = look(pid, frozenset({pid, other}), GHOST)
        kinds = {(each.kind, each.pid) for each in found}
        assert kinds == {("traced", pid), ("guest", other)}


def test_a_container_with_a_device_open_says_so_everywhere(masu: Masu) -> None:
    """In preflight, in status where it has a schedule, and as the reason of a checkpoint that is asked for."""
    holding: dict[str, Any] = {
        "process": {"args": ["/bin/sh", "-c", "exec 7<>/dev/fuse; while :; do sleep 1; done"]},
        "devices": [{"path": "/dev/fuse"}],
        "checkpoint": {"schedule": {"every": "1d"}},
    }
    masu.write(container(**holding))
    assert masu.apply().returncode == 0
    pid = masu.pid()
    until(lambda: Path(f"/proc/{pid}/fd/7").exists(), "open")
    reason = f"process {pid}, fd 7: device /dev/fuse (10:229) is open"
    said = masu.run("preflight")
    assert said.returncode == 1
    assert said.stdout.startswith(f"web: no checkpoint now\n  container web: {reason}\n")
    assert masu.status()["checkpoint"]["verdict"].startswith(f"container web: {reason}")
    assert reason in done(masu, "checkpoint", "web", code=1)
    assert masu.pid() == pid
    masu.write(counting())
    assert masu.apply().returncode == 0
    goes_on(masu, 3)
    assert json.loads(masu.run("preflight", "web", "-o", "json").stdout) == [
        {"container": "web", "ready": True, "reasons": [], "left": []}
    ]
    done(masu, "checkpoint", "web")
    masu.write(counting(state="stopped", namespaces={"ipc": "host"}))
    assert masu.apply().returncode == 0
    text = masu.run("preflight", "web").stdout
    assert "shares the ipc namespace" in text
    assert "is not running" in text
    assert "no container other" in done(masu, "preflight", "other", code=1)


WAITING = (
    "until grep -q ' /mnt fuse ' /proc/mounts; do sleep 0.1; done; exec 8</mnt; while :; do sleep 1; done"
)


@pytest.mark.parametrize("answer", ["never", "dead"])
def test_a_program_that_does_not_answer_for_its_files_holds_nobody_up(masu: Masu, answer: str) -> None:
    """Status, preflight and the repair of a kill, with one of its files open, where a mount and a node would be."""
    spec = container(
        process={"args": ["/bin/sh", "-c", WAITING]},
        checkpoint={"schedule": {"every": "1s"}},
        mounts=[{"tmpfs": "/mnt/below"}],
    )
    masu.write(spec, container("other"))
    masu.start()
    pid = masu.running()
    with silent(pid, "/mnt") as server:
        until(lambda: Path(f"/proc/{pid}/fd/8").is_symlink(), "open")
        until(lambda: os.readlink(f"/proc/{pid}/fd/8") == "/mnt", "open")
        if answer == "dead":
            server.kill()
            server.wait(10)
        said = masu.run("preflight", "web", timeout=10)
        assert said.returncode == 1
        assert f"process {pid}: the file system on /mnt is a program's (FUSE)" in said.stdout
        assert f"process {pid}, fd 8: /mnt is open, and its file system is a program's (FUSE)" in said.stdout
        assert "(FUSE)" in masu.run("checkpoint", "web", timeout=10).stderr
        status = json.loads(masu.run("status", "-o", "json", timeout=10).stdout)
        found = {each["name"]: each for each in status["containers"]}
        assert "/mnt is a program's (FUSE)" in found["web"]["checkpoint"]["verdict"]
        assert [each["key"] for each in found["web"]["drift"]] == ["mounts./mnt/below"]
        assert found["other"]["converged"]
        until(lambda: "CheckpointFailed" in {each["type"] for each in masu.events()}, "the schedule says so")
        os.kill(pid, signal.SIGKILL)
        masu.restarted(pid)
    until(lambda: masu.status()["converged"], "converged")


def metrics(masu: Masu) -> dict[str, float]:
    """Of the one container's checkpoints, by the end of their names."""
    lines = masu.run("status", "-o", "metrics").stdout.splitlines()
    found = (line for line in lines if line.startswith("masu_container_checkpoint_"))
    return {line.split("{")[0].partition("checkpoint_")[2]: float(line.split()[-1]) for line in found}


def reasons(masu: Masu, code: int) -> list[str]:
    said = masu.run("preflight", "web", "-o", "json")
    assert said.returncode == code, said
    found: list[str] = json.loads(said.stdout)[0]["reasons"]
    return found


def test_what_the_store_lacks_is_told_before_and_after(masu: Masu, tmp_path: Path) -> None:
    """The key, the package that seals, and the room; and in status, for as long as none is made."""
    key = tmp_path / "key"
    sealed = {"schedule": {"every": "1s"}, "encryption": {"keyFile": str(key)}}
    masu.write(counting(checkpoint={**sealed, "minFree": "9000Gi"}))
    masu.start()
    masu.running()
    absent, room = reasons(masu, 5)
    assert f"openssl rand -hex 32 >{key}" in absent
    assert f"/var/lib/masu/{masu.instance}/checkpoints has " in room
    assert "9000Gi shall stay free (checkpoint.minFree)" in room
    until(lambda: metrics(masu).get("failures_total", 0) > 1, "the schedule has failed")
    assert metrics(masu)["ready"] == 0
    status = masu.status()
    assert status["checkpoint"]["verdict"].startswith(f"key file {key} is missing")
    assert status["conditions"][-1]["reason"] == "CheckpointFailed"
    assert f"{key} is missing" in status["conditions"][-1]["message"]
    assert "CheckpointFailed" in masu.run("status").stdout.splitlines()[1]
    masu.write(counting(checkpoint=sealed))
    key.write_text("k" * 31)
    key.chmod(0o600)
    until(lambda: "needs 32 to 4096 bytes" in "".join(reasons(masu, 1)), "it is too short")
    key.write_text("k" * 32)
    key.chmod(0o644)
    assert reasons(masu, 1) == [
        f"key file {key}: must be a file that only its owner can read: chmod 600 {key}"
    ]
    told = "CheckpointFailed"
    until(lambda: sum(each["type"] == told for each in masu.events()) > 1, "another reason is told")
    key.chmod(0o600)
    assert reasons(masu, 0) == []
    until(lambda: "success_timestamp_seconds" in metrics(masu), "one is made")
    assert metrics(masu)["ready"] == 1
    assert told not in masu.run("status").stdout


def test_packages_that_are_absent_are_told_with_the_pip_that_installs_them(
    masu: Masu, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    masu.write(counting(checkpoint={"encryption": {"keyFile": str(key)}}))
    assert masu.apply().returncode == 0
    hiding = "import sys; sys.modules['cryptography'] = sys.modules['pyrage'] = None"
    (tmp_path / "sitecustomize.py").write_text(hiding)
    env = {"PYTHONPATH": str(tmp_path)}
    pip = f"{sys.executable} -m pip install"
    said = f"encrypted checkpoints need the Python package cryptography: {pip} cryptography"
    found = masu.run("preflight", "web", env=env)
    assert found.stdout == f"web: no checkpoint now\n  {said}\n"
    assert found.returncode == 5
    assert said in masu.run("checkpoint", "web", env=env).stderr
    rows = {each["subject"]: each for each in json.loads(masu.run("doctor", "-o", "json", env=env).stdout)}
    assert rows["encrypted checkpoints"]["level"] == rows["sealed secrets"]["level"] == "limited"
    assert rows["encrypted checkpoints"]["fix"] == f"{pip} cryptography"
    assert rows["sealed secrets"]["fix"] == f"{pip} pyrage"


def test_what_a_container_calls_its_files_is_no_word_to_a_terminal(masu: Masu) -> None:
    """Names with control characters and line ends: a line of masu's own cannot be forged with them."""
    name = r'n=$(printf "/tmp/e\033[2J\nmasu: all is well\033]0;x\007")'
    args = [
        "/bin/sh",
        "-c",
        f'{name}; exec 7<>"$n"; fallocate -l 80M "$n"; rm "$n"; echo up; while :; do sleep 1; done',
    ]
    masu.write(container(process={"args": args}, checkpoint={"schedule": {"every": "1h"}}))
    masu.start()
    masu.running()
    until(lambda: "up" in masu.run("logs", "web").stdout, "its file is open")
    for words in (("preflight", "web"), ("checkpoint", "web"), ("status", "web"), ("events",)):
        run = masu.run(*words)
        said = run.stdout + run.stderr
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said), words
        assert not [line for line in said.splitlines() if line.startswith("masu: all is well")]
    assert r"/tmp/e\x1b[2J\nmasu: all is well" in masu.run("preflight", "web").stdout
