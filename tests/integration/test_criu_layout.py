"""Looking at a container before its dump: whatever is mounted in it, the look comes to an end and leads nowhere."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller import host
from controller.errors import StepFailed
from controller.host.criu_layout import Seen, changed, has_connections, observe

pytestmark = pytest.mark.root
CONFIG: dict[str, Any] = {"mounts": [{"destination": "/mnt"}]}
READY = "echo ready; exec sleep 60"


@contextmanager
def inside(script: str) -> Iterator[int]:
    """The pid of a process in a mount namespace of its own, where the script has been run."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{script}\n{READY}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def seen(pid: int) -> Seen:
    return observe(pid, CONFIG, "/nowhere", keep_all=False)


def test_a_tmpfs_is_empty_until_something_is_in_it() -> None:
    with inside("mount -t tmpfs t /mnt; mkdir -p /mnt/a/b; mount -t tmpfs u /mnt/a/b") as pid:
        found = seen(pid)
        try:
            assert {"/mnt", "/mnt/a/b"} <= set(found.bare), "but for what leads to another mount"
            assert not changed(found)
            Path(f"/proc/{pid}/root/mnt/a/file").touch()
            assert changed(found)
        finally:
            found.close()


def test_no_link_is_followed_and_what_is_covered_is_not_taken_for_empty(tmp_path: Path) -> None:
    """Else a container would have masu list a directory of the host's, or one of another's file system."""
    script = "mount -t tmpfs t /mnt; mkdir /mnt/a; mount -t tmpfs u /mnt/a; mount --bind {0} /mnt/a"
    with inside(script.format(tmp_path)) as pid:
        found = seen(pid)
        found.close()
        assert "/mnt/a" not in found.bare


@pytest.mark.parametrize(("kind", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_a_connection_is_told_from_a_socket_that_listens(kind: str, address: str) -> None:
    program = f"""
import socket, sys
def told(word):
    print(word, flush=True)
    sys.stdin.readline()
told("nothing")
listener = socket.socket(socket.{kind})
listener.bind(("{address}", 0))
listener.listen()
told("listens")
client = socket.socket(socket.{kind})
client.connect(listener.getsockname())
told("is connected")
"""
    script = f"ip link set lo up; exec {sys.executable} -c '{program}'"
    argv = ["unshare", "--net", "sh", "-ec", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            for word, expected in (("nothing", False), ("listens", False), ("is connected", True)):
                assert process.stdout.readline().strip() == word
                assert has_connections(process.pid) is expected, word
                process.stdin.write("\n")
                process.stdin.flush()
        finally:
            process.kill()


def test_a_file_system_that_may_never_answer_is_refused() -> None:
    """It has no program behind it: whoever walks into it waits for ever."""
    script = "exec 7<>/dev/fuse; mount -i -t fuse -o fd=7,rootmode=40000,user_id=0,group_id=0 f /mnt"
    with inside(script) as pid, pytest.raises(StepFailed, match="/mnt is a program's"):
        seen(pid)


def test_what_a_mount_comes_from_is_reached_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below what the host's administrator has named, a container may have put anything."""
    monkeypatch.syspath_prepend(str(Path(host.__file__).parent / "keeper"))  # it knows of no package
    restoring = importlib.import_module("restoring")
    source, secret = tmp_path / "source", tmp_path / "secret"
    (source / "a" / "b").mkdir(parents=True)
    secret.mkdir()
    (source / "link").symlink_to(secret)
    (source / "a" / "up").symlink_to("../..")
    descriptor = restoring._opened(str(source), "/a/b")
    assert os.path.samestat(os.fstat(descriptor), os.stat(source / "a" / "b"))
    os.close(descriptor)
    for below in ("/link", "/link/x", "/a/up", "/a/up/secret"):
        with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
            restoring._opened(str(source), below)
