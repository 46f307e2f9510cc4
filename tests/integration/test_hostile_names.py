"""Names that a container has chosen so that a line of /proc looks like two: they are names, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.host import facts as host_facts
from controller.host.cgroups.homes import Homes
from controller.host.inside import NamespaceInside
from controller.host.mountinfo import mount_of
from controller.host.nodes import DeviceNodes
from controller.host.processes import ProcDirectory
from controller.host.visits import Visits
from controller.model.launch import NODES_MARK

pytestmark = pytest.mark.root

SEPARATORS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\u2003\xa0"
"""What str.splitlines() and str.split() take for the end of a line, or for a blank, and the kernel does not."""
FORGED = "\x85" + f"9 9 0:9 / /dev/forged rw - tmpfs {NODES_MARK} rw".replace(" ", "\u2003")
MOUNT_EACH = """
import os, subprocess, sys
mount = lambda path: subprocess.run(["mount", "-t", "tmpfs", "plain", path], check=True)
mount("/dev")
for each in sys.argv[1:]:
    os.makedirs(each)
    mount(each)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[tuple[int, list[str]]]:
    """The pid of a process in a mount namespace of its own, and where it has mounted something."""
    places = [f"{tmp_path}/a{each}b c" for each in SEPARATORS] + [f"{tmp_path}/{FORGED}"]
    argv = ["unshare", "-m", sys.executable, "-S", "-c", MOUNT_EACH, *places]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid, places
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_what_is_mounted_on_such_a_name_is_seen(hostile: tuple[int, list[str]]) -> None:
    pid, places = hostile
    seen = NamespaceInside(Visits()).mounts(pid, dict.fromkeys(places, "")) or {}
    assert {place: seen[place].kind for place in places} == dict.fromkeys(places, "tmpfs")


def test_nobody_makes_a_node_of_masus_out_of_a_name(hostile: tuple[int, list[str]], tmp_path: Path) -> None:
    pid, _ = hostile
    (tmp_path / "web" / "nodes").mkdir(parents=True)
    seen = DeviceNodes(str(tmp_path), Visits()).look("web", pid, ["sub/latency"]) or {}
    assert {place: each.ours for place, each in seen.items()} == {"sub/latency": False}


def test_a_group_of_such_a_name_is_a_group() -> None:
    facts = host_facts.look(None)
    mount = facts.hierarchies[0].mount
    group = Path(mount, f"masu-t-{os.getpid()}{SEPARATORS}x:y")
    group.mkdir()
    try:
        with subprocess.Popen(["sleep", "1000"]) as process:
            try:
                (group / "cgroup.procs").write_text(str(process.pid))
                found = ProcDirectory(Homes(facts)).groups(process.pid)[mount]
            finally:
                process.kill()
        assert found.endswith(group.name)
    finally:
        group.rmdir()


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (
            "36 35 98:0 / /a\\040b\\134c rw,noatime master:1 unbindable - ext3 /dev/ro\\011ot rw,x=1",
            "/dev/ro\tot",
        ),
        ("36 35 98:0 / /a\\040b\\134c rw,noatime - ext3  rw,x=1", ""),
    ],
    ids=["optional fields", "from nowhere"],
)
def test_a_line_is_read_field_by_field(line: str, source: str) -> None:
    found = mount_of(line)
    assert found is not None
    assert (found.target, found.options, found.kind) == ("/a b\\c", ("rw", "noatime"), "ext3")
    assert (found.source, found.settings) == (source, ("rw", "x=1"))


@pytest.mark.parametrize("line", ["", "36", "36 35 98:0 / /a rw", "36 35 98:0 / /a rw -", "- - - - - - -"])
def test_what_is_no_line_is_nothing(line: str) -> None:
    assert mount_of(line) is None
