"""CRIU gets no further: init dies while it holds the others, or somebody freezes them. They go on all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, cgroup_mounts, container, until

MANY = "for i in $(seq 30); do sleep 100000 & done; echo up; while :; do usleep 1000; done"
SOON_S = 5.0
ROUNDS_S = 60.0
WAIT4 = {"x86_64": 61, "aarch64": 260}.get(os.uname().machine, 0)


def started(masu: Masu) -> int:
    """Init's pid, of a container with many processes."""
    again = {"backoff": {"initial": "100ms", "max": "200ms"}}
    masu.write(container(process={"args": ["/bin/sh", "-c", MANY]}, restart=again))
    masu.start()
    pid = masu.running()
    until(lambda: len(children(pid)) > 30, "it has all its processes")
    return pid


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def tracer(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/status").read_text().split("TracerPid:")[1].split()[0])
    return 0


def dumping(pid: int) -> list[int]:
    """Every CRIU that dumps what is below this init."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_text().startswith(f"criu: dump --rpc -t {pid}"):
                found.append(int(path.parent.name))
    return found


def caught(pid: int) -> bool:
    """Init is killed at the moment at which CRIU waits for it and holds the others, if there was one."""
    criu = until(lambda: next(filter(None, map(tracer, children(pid))), 0), "its processes are held")
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        while tracer(pid):
            with stopped(criu):
                if Path(f"/proc/{criu}/syscall").read_text().startswith(f"{WAIT4} {pid:#x} "):
                    os.kill(pid, signal.SIGKILL)
                    return True
    return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "TZX":
            pass
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def knocked(masu: Masu, pid: int) -> tuple[int, str]:
    """One checkpoint during which init is killed, if it was the moment. → init's pid, and what was said."""
    with masu.spawn("checkpoint", "web", stderr=subprocess.PIPE) as asking:
        if caught(pid):
            before, since = pid, time.monotonic()
            pid = masu.restarted(before)
            assert time.monotonic() - since < SOON_S
            assert dumping(before) == []
        return pid, asking.communicate()[1].decode()


def test_it_starts_again_at_once(masu: Masu) -> None:
    """It would have waited for as long as a dump may take."""
    pid, said, ends = started(masu), "", time.monotonic() + ROUNDS_S
    while "init has ended" not in said:
        if time.monotonic() > ends:
            pytest.skip("CRIU was never caught at the moment")
        pid, said = knocked(masu, pid)
    assert masu.halfway() == []


def left_alone(masu: Masu) -> int:
    """An init that a CRIU holds, which belongs to nobody any more; its masu was killed as well."""
    pid, ends = started(masu), time.monotonic() + ROUNDS_S
    while time.monotonic() < ends:
        with masu.spawn("checkpoint", "web", stderr=subprocess.DEVNULL) as asking:
            hit = caught(pid)
            if hit:
                masu.stop(signal.SIGKILL)
                asking.kill()
        time.sleep(0.3 * hit)
        if hit and dumping(pid):
            return pid
        if hit:
            masu.start()
            pid = masu.restarted(pid)
    pytest.skip("CRIU was never caught at the moment")


def test_the_next_masu_finds_it(masu: Masu) -> None:
    before = left_alone(masu)
    since = time.monotonic()
    masu.start()
    masu.restarted(before)
    assert time.monotonic() - since < SOON_S
    assert [*dumping(before), *Path("/proc").glob(f"{before}"), *masu.halfway()] == []
    assert [each["message"] for each in masu.events() if "was stuck and is killed" in each["message"]]


def test_down_finds_it(masu: Masu) -> None:
    before = left_alone(masu)
    done = masu.run("down", "--all")
    assert done.returncode == 0, done.stderr
    assert [*dumping(before), *Path("/proc").glob(f"{before}"), *masu.traces()] == []


def freezers(masu: Masu) -> dict[Path, str]:
    """And the word that freezes."""
    words = {"freezer.state": "FROZEN", "cgroup.freeze": "1"}
    found = {
        Path(mount) / "masu" / masu.instance / "web" / file: word
        for mount in cgroup_mounts()
        for file, word in words.items()
    }
    return {file: word for file, word in found.items() if file.exists()}


def test_whoever_freezes_it_meanwhile_is_undone(masu: Masu) -> None:
    """The dump goes on then, and the checkpoint says so."""
    pid = started(masu)
    for file, word in freezers(masu).items():
        thawed, since = file.read_text(), time.monotonic()
        with masu.spawn("checkpoint", "web") as asking:
            criu = until(lambda: next(filter(None, map(tracer, children(pid))), 0), "its processes are held")
            with stopped(criu):
                file.write_text(word)
            assert asking.wait(SOON_S) == 0
        assert time.monotonic() - since < SOON_S
        assert file.read_text() == thawed
    said = [each["message"] for each in masu.events() if each["type"] == "Checkpointed"]
    assert all("was frozen by somebody else" in each for each in said), said
    assert masu.pid() == pid
