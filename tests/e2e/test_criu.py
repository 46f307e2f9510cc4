"""Containers that masu started, dumped and restored by CRIU itself. No policy: see the tests of checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from controller.errors import StepFailed
from tests.e2e.boxes import PROGRAMS, Box, Talker
from tests.e2e.harness import Masu, container, until

COUNT = "i=0; echo up; while :; do i=$((i+1)); echo $i >/dev/shm/n; echo line $i; sleep 0.1; done"

SERVER = """
import socket, threading, time
held = open("/tmp/held", "w")
ticks = longest = 0
def tick():
    global ticks
    while True:
        ticks += 1
        held.write(f"{ticks}\\n")
        held.flush()
        time.sleep(0.02)
def watch():
    global longest
    last = time.monotonic()
    while True:
        time.sleep(0.0005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
def serve(connection):
    global longest
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            if line == b"ticks\\n":
                line = b"%d\\n" % ticks
            elif line == b"clock\\n":
                line = b"%f\\n" % time.monotonic()
            elif line == b"longest\\n":
                line, longest = b"%d\\n" % (longest * 1e6), 0
            stream.write(line)
            stream.flush()
for each in (tick, watch):
    threading.Thread(target=each, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 7000))
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def started(masu: Masu, **spec: object) -> Box:
    masu.write(container(**spec))
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    until(lambda: "up" in masu.run("logs", "web").stdout, "it is up")
    return Box(masu)


def python(masu: Masu, **spec: object) -> Box:
    process = {"args": ["/usr/bin/python3", "-c", SERVER]}
    mounts = [{"tmpfs": "/tmp", "size": "8Mi"}]
    return started(masu, rootfs={"path": PROGRAMS}, process=process, mounts=mounts, **spec)


def counted(box: Box) -> int:
    return int((Path(f"/proc/{box.init.pid}/root/dev/shm/n").read_text() or "0").strip() or 0)


def test_a_container_goes_on_after_a_restore(either: Masu, tmp_path: Path) -> None:
    """Its memory and tmpfs, its log, its volumes, `masu exec` and its exit, with both runtimes."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mounts = [{"source": str(volume), "target": "/srv", "readOnly": True}]
    with started(either, process={"args": ["/bin/sh", "-c", COUNT]}, mounts=mounts) as box:
        until(lambda: counted(box) > 2, "it counts")
        box.dump(kill=True)
        before = counted_in(box)
        box.end()
        init = box.restore()
        until(lambda: counted(box) > before, "it goes on counting")
        assert counted(box) < before + 50
        until(lambda: f"line {before + 2}\n" in either.run("logs", "web").stdout, "its log goes on")
        assert "ro" in mount_options(init.pid, "/srv")
        assert "ro" in mount_options(init.pid, "/proc/acpi")
        said = box.execute("cat /dev/shm/n; grep Seccomp: /proc/self/status; cat /proc/self/cgroup")
        assert "Seccomp:\t2" in said
        assert either.instance not in said.split("pids:")[1].split("\n")[0]
        os.kill(init.pid, signal.SIGKILL)
        until(lambda: box.exit_record().get("pid") == init.pid, "its exit is written down")
        assert box.exit_record()["signal"] == signal.SIGKILL


def counted_in(box: Box) -> int:
    """At the time of the dump: the log says it, too, and goes on to be read after the end."""
    lines = box.masu.run("logs", "web").stdout.split("line ")
    return int(lines[-1].split()[0])


def mount_options(pid: int, target: str) -> list[str]:
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return next(line[5].split(",") for line in lines if line[4] == target)


def test_a_connection_survives_and_clocks_do_not_jump(masu: Masu) -> None:
    """Threads, timers, an open file on a tmpfs, and a connection of which no byte is lost."""
    with python(masu) as box, Talker(masu) as talker:
        assert talker.ask("hello") == "hello"
        box.dump(kill=True)
        time.sleep(0.5)
        box.end()
        before = Path("/proc/uptime").read_text()
        box.restore()
        assert talker.ask("again") == "again"
        assert float(talker.ask("clock")) < float(before.split()[0])  # it was away, and did not notice
        ticks = int(talker.ask("ticks"))
        until(lambda: int(talker.ask("ticks")) > ticks, "its threads run")
        assert int(box.execute("tail -n 1 /tmp/held")) >= ticks


def test_a_container_with_users_and_a_time_of_its_own(either: Masu) -> None:
    """Its clocks go on; connections to it are closed, and the dump says so."""
    with python(either, namespaces={"user": "auto", "time": {"boottime": "10d"}}) as box:
        uptime = float(box.execute("cut -d' ' -f1 /proc/uptime"))
        assert box.dump(kill=True).tcp == "close"
        box.end()
        box.restore()
        with Talker(either) as talker:
            assert talker.ask("hello") == "hello"
        assert uptime < float(box.execute("cut -d' ' -f1 /proc/uptime")) < uptime + 60
        assert box.execute("stat -c %u /tmp /tmp/held").split() == ["0"] * 2


def test_redis_under_load_keeps_its_keys_and_its_clients(masu: Masu) -> None:
    process = {"args": ["/usr/bin/redis-server", "--save", "", "--port", "7000"]}
    masu.write(container(rootfs={"path": PROGRAMS}, process=process))
    assert masu.apply().returncode == 0
    until(lambda: "Ready to accept" in masu.run("logs", "web").stdout, "redis is up")
    inside = ["nsenter", f"--net=/run/masu/{masu.instance}/netns/web", "chroot", PROGRAMS]

    def ask(*words: str) -> str:
        done = subprocess.run(
            [*inside, "redis-cli", "-p", "7000", *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def processed() -> int:
        lines = ask("info", "stats").splitlines()
        return int(next(line for line in lines if line.startswith("total_commands")).split(":")[1])

    ask("set", "key", "value")
    load = ["redis-benchmark", "-p", "7000", "-c", "8", "-n", "100000000", "-t", "incr", "-q"]
    with Box(masu) as box, subprocess.Popen([*inside, *load], stdout=subprocess.DEVNULL) as clients:
        try:
            until(lambda: processed() > 1000, "there is load")
            box.dump(kill=True)
            box.end()
            box.restore()
            assert ask("get", "key") == "value"
            before = processed()
            until(lambda: processed() > before + 1000, "its clients go on")
            assert clients.poll() is None
        finally:
            clients.kill()


def refused() -> None:
    raise StepFailed("no space for a snapshot")


def test_whatever_fails_the_container_runs_on(masu: Masu) -> None:
    """A snapshot that fails, a dump that takes too long, a CRIU that is killed: nothing stays frozen or locked."""
    box = python(masu)
    with box, Talker(masu) as talker:
        stood: list[str] = []
        box.dump(lambda: stood.append(states(box.init.pid)))
        assert stood == ["t"]
        with pytest.raises(StepFailed, match="no space"):
            box.dump(refused)
        goes_on(talker)
        for timeout_ms in (20, 60, 100):
            attempt(partial(box.dump, timeout_ms=timeout_ms))
            goes_on(talker)
        attempt(lambda: box.dump(lambda: kill_criu(box)))
    with (
        box,
        Talker(masu) as talker,
    ):  # a read at the moment of that kill failed with EPERM: docs/checkpoints.md
        goes_on(talker)
        tables = subprocess.run(
            ["nsenter", f"--net=/run/masu/{masu.instance}/netns/web", "nft", "list", "tables"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert tables.stdout == ""
        box.dump(kill=True)
        box.end()
        box.restore()
        goes_on(talker)


def states(pid: int) -> str:
    """Of all threads of a process, each once."""
    texts = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return "".join(sorted({text[text.rindex(")") + 2] for text in texts}))


def goes_on(talker: Talker) -> None:
    assert talker.ask("hello") == "hello"
    ticks = int(talker.ask("ticks"))
    until(lambda: int(talker.ask("ticks")) > ticks, "its threads run")


def attempt(call: Callable[[], object]) -> None:
    """Faster than its time-out is no failure."""
    try:
        call()
    except StepFailed:
        return


def kill_criu(box: Box) -> None:
    """It is the tracer of the container's processes."""
    status = Path(f"/proc/{box.init.pid}/status").read_text()
    tracer = int(status.split("TracerPid:")[1].split()[0])
    os.kill(tracer, signal.SIGKILL)
