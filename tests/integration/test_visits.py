"""The visiting thread: gives up what hangs, comes home after every failure, is replaced when it cannot."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from controller.errors import StepFailed
from controller.host.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS
from controller.host.visits import Trip, Visits

pytestmark = pytest.mark.root


@pytest.fixture
def pid() -> Iterator[int]:
    """A process in namespaces of its own: it says a line when it is there, and ends with its input."""
    words = ["unshare", "-n", "-u", "-m", "sh", "-c", "echo; read -r line"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as there:
        assert there.stdout is not None
        there.stdout.readline()
        yield there.pid
        there.kill()


def test_work_that_hangs_is_given_up_and_others_go_on() -> None:
    visits, release, stuck = Visits(0.3), threading.Event(), []

    def hang(_: Trip) -> None:
        stuck.append(threading.current_thread())
        release.wait(60)

    with pytest.raises(StepFailed, match=r"waiting for ever: no answer in 0\.3 s"):
        visits.call("waiting for ever", hang)
    assert visits.call("looking", lambda _: threading.current_thread()) not in stuck
    release.set()
    stuck[0].join(5)
    assert not stuck[0].is_alive()


def test_work_that_was_given_up_in_the_queue_is_never_done() -> None:
    visits, release, done = Visits(0.3), threading.Event(), []
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(visits.call, "first", lambda _: release.wait(60))]
        time.sleep(0.02)
        visits._patience_s = 0.1  # the second caller loses its patience first
        answers.append(pool.submit(visits.call, "second", lambda _: done.append("second")))
        assert [type(each.exception(10)) for each in answers] == [StepFailed, StepFailed]
    release.set()
    assert visits.call("third", lambda _: "third") == "third"
    assert done == []


def test_thread_that_cannot_come_home_is_replaced(pid: int) -> None:
    """Its way home is blocked by putting another file under the descriptor it would return through."""
    visits = Visits(5.0)

    def lose(trip: Trip) -> threading.Thread:
        trip.enter(pid, CLONE_NEWNET)
        nowhere = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nowhere, trip._home.namespaces[CLONE_NEWNET])
        os.close(nowhere)
        return threading.current_thread()

    lost = visits.call("getting lost", lose)
    lost.join(5)
    assert not lost.is_alive()
    assert visits.call("looking", lambda trip: trip.abroad(CLONE_NEWNET)) is False


def test_errors_of_the_work_reach_the_caller_and_the_thread_is_home(pid: int) -> None:
    visits = Visits(5.0)

    def fail(trip: Trip) -> None:
        trip.enter(pid, CLONE_NEWUTS | CLONE_NEWNS)
        raise TimeoutError(errno.ETIMEDOUT, "of the work itself")

    with pytest.raises(TimeoutError, match="of the work itself"):
        visits.call("failing", fail)
    assert visits.call("looking", lambda t: t.abroad(CLONE_NEWUTS) or t.abroad(CLONE_NEWNS)) is False
