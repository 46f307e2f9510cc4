"""The controller's side of the keeper, with a real keeper and no container."""

from __future__ import annotations

import fcntl
import resource
import socket
import time
from pathlib import Path

from controller.host.keeping import KeeperClient, is_readable


def test_whatever_keeps_a_keeper_from_starting_may_pass(tmp_path: Path) -> None:
    """A place that cannot be written to, for one; the guard goes on trying."""
    blocked = tmp_path / "state"
    blocked.write_text("a file where a directory should be")
    client = KeeperClient(f"{tmp_path}/run", f"{blocked}/logs", 1024)
    client.guard(lambda _: None)
    try:
        time.sleep(0.3)
        assert client.pid() == 0
        blocked.unlink()
        deadline = time.monotonic() + 10
        while not client.pid() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.pid()
    finally:
        client.close()
        client.stop()


def test_an_answer_is_heard_on_a_descriptor_of_any_number() -> None:
    ours, theirs = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        high = socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 1500))
        with ours, theirs, high:
            assert high.fileno() >= 1500
            assert not is_readable(high, 0)
            theirs.send(b"x")
            assert is_readable(high, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
