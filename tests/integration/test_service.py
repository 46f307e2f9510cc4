"""What signals do to a process, on a real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from controller.host import service

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in OURS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_heard_whatever_the_main_thread_waits_for() -> None:
    """It came to another thread, or a moment before the wait: nothing ends that."""
    stopped, reloaded, over = threading.Event(), threading.Event(), threading.Event()
    service.on_signals(stopped.set, reloaded.set)
    other = threading.Thread(target=over.wait)
    other.start()

    def tell(number: int) -> None:
        time.sleep(0.1)
        signal.pthread_kill(other.ident or 0, number)

    try:
        for number, heard in ((signal.SIGHUP, reloaded), (signal.SIGTERM, stopped)):
            threading.Thread(target=tell, args=(number,)).start()
            assert heard.wait(5), signal.Signals(number).name
    finally:
        over.set()
        other.join()


ENDING = """
import os, signal, sys, time
from controller.host import service
if sys.argv[1]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
service.end_on_signals()
try:
    print("ready", flush=True)
    time.sleep(0.5 if sys.argv[1] else 60)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("tidied up", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "ignored", "code"),
    [(signal.SIGTERM, "", 143), (signal.SIGHUP, "", 129), (signal.SIGHUP, "ignored", 143)],
)
def test_a_signal_unwinds_once(number: int, ignored: str, code: int) -> None:
    argv = [sys.executable, "-c", ENDING, ignored]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said = process.stdout.read()
    assert process.returncode == code
    assert said == ("" if ignored else "tidied up\n"), "a second one does not interrupt that"
