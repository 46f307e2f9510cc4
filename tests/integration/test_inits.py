"""How an init has ended, as the kernel tells somebody who is not its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from controller.host.inits import Inits
from controller.model.launch import Ended


@pytest.fixture
def inits() -> Iterator[Inits]:
    made = Inits()
    yield made
    made.release("web")


def held(inits: Inits, script: str) -> int:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], {})
    pidfd = os.pidfd_open(pid)
    inits.hold("web", pid, pidfd)
    os.close(pidfd)
    return pid


@pytest.mark.parametrize(
    ("script", "end"), [("exit 7", Ended(7, 0)), ("exit 0", Ended(0, 0)), ("kill -9 $$", Ended(0, 9))]
)
def test_it_is_known_before_and_after_its_parent_has_waited_for_it(
    inits: Inits, script: str, end: Ended
) -> None:
    pid = held(inits, script)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert inits.end_of("web", pid) == end
    os.waitpid(pid, 0)
    if _kernel() >= (6, 15):
        assert inits.end_of("web", pid) == end
    else:
        assert inits.end_of("web", pid) is None


def test_nothing_is_known_of_one_that_runs_nor_of_another(inits: Inits) -> None:
    pid = held(inits, "exec sleep 100")
    try:
        assert inits.end_of("web", pid) is None
    finally:
        os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert inits.end_of("web", pid + 1) is None
    assert inits.end_of("db", pid) is None
    inits.release("web")
    assert inits.end_of("web", pid) is None
    os.waitpid(pid, 0)


def test_one_descriptor_for_each_container(inits: Inits) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        os.waitpid(held(inits, "exit"), 0)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    inits.release("web")
    assert len(os.listdir("/proc/self/fd")) == before


def _kernel() -> tuple[int, ...]:
    return tuple(int(each) for each in os.uname().release.split("-")[0].split(".")[:2])
