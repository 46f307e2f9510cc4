"""Looking and touching inside real namespaces: everything that changes is seen there and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.inside import NamespaceInside
from controller.host.mount_table import NOWHERE
from controller.host.nodes import DeviceNodes
from controller.host.proc_stat import stat_of
from controller.host.visits import Visits
from controller.model.launch import Init
from tests.silent import silent

pytestmark = pytest.mark.root

PLAIN = ("-n", "-u", "-i", "-m")
MAPPED = ("-U", "-r", *PLAIN)
SHIFTED = ("-U", *PLAIN)  # its root is somebody else on the host: see the fixture
JAIL = """
for each in usr bin lib lib64 proc; do
    [ -e /$each ] || continue
    mkdir -p "$0/$each" && mount --rbind /$each "$0/$each"
done
exec chroot "$0" sleep 1000
"""


@contextlib.contextmanager
def process(*words: str) -> Iterator[int]:
    """The pid of the `sleep` at the end of these words, which forks once; ended with its whole session."""
    outer = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL)
    try:
        yield wait_for_sleep(outer.pid)
    finally:
        os.killpg(outer.pid, signal.SIGKILL)
        outer.wait(10)


def init(pid: int) -> Init:
    found = stat_of(pid)
    return Init(pid, found.start_time if found else 0)


def wait_for_sleep(outer: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text() == "sleep\n":
                return int(children[0])
        time.sleep(0.005)
    raise TimeoutError("the process did not come up in 10 s")


@pytest.fixture(params=[PLAIN, MAPPED, SHIFTED], ids=["plain", "userns", "shifted"])
def pid(request: pytest.FixtureRequest) -> Iterator[int]:
    with process("unshare", *request.param, "--fork", "sleep", "1000") as found:
        if request.param == SHIFTED:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{found}/{name}").write_text("0 100000 65536\n")
        yield found


@pytest.fixture
def inside() -> NamespaceInside:
    return NamespaceInside(Visits())


def mountinfo(pid: int | str, target: str) -> list[list[str]]:
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return [fields for fields in lines if fields[4] == target]


def test_hostname_is_read_and_set_there_alone(inside: NamespaceInside, pid: int) -> None:
    before = os.uname().nodename
    assert inside.hostname(pid) == before
    inside.set_hostname(init(pid), "t-boxed")
    assert inside.hostname(pid) == "t-boxed"
    assert os.uname().nodename == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.core.somaxconn", "77"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("net.ipv4.ip_local_port_range", "2000 3000"),
        ("kernel.shmmax", "123456"),
        ("kernel.msgmax", "4444"),
        ("kernel.sem", "100 200 30 40"),
        ("fs.mqueue.msg_max", "33"),
        ("kernel.domainname", "t-domain"),
    ],
)
def test_sysctl_is_read_and_set_there_alone(inside: NamespaceInside, pid: int, key: str, value: str) -> None:
    host = Path("/proc/sys", key if "/" in key else key.replace(".", "/"))
    before = host.read_text()
    inside.set_sysctl(init(pid), key, value)
    assert inside.sysctl(pid, key) == value
    assert host.read_text() == before


@pytest.mark.parametrize("key", ["net.core.no_such_key", "net", "net..core", "net/../kernel/shmmax", ""])
def test_absent_sysctl_is_none_and_cannot_be_set(inside: NamespaceInside, pid: int, key: str) -> None:
    assert inside.sysctl(pid, key) is None
    with pytest.raises(StepFailed):
        inside.set_sysctl(init(pid), key, "1")


def test_sysctl_of_the_whole_host_is_refused(inside: NamespaceInside, pid: int) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    with pytest.raises(StepFailed, match="not a key of"):
        inside.set_sysctl(init(pid), "vm.swappiness", "1")
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_refused_value_names_process_file_and_errno(inside: NamespaceInside, pid: int) -> None:
    expected = rf"process {pid}: .*'many' /proc/sys/net/core/somaxconn: .*errno 22"
    with pytest.raises(StepFailed, match=expected) as info:
        inside.set_sysctl(init(pid), "net.core.somaxconn", "many")
    assert info.value.errno == errno.EINVAL


def test_loopback_is_raised(inside: NamespaceInside, pid: int) -> None:
    assert inside.loopback_up(pid) is False
    inside.raise_loopback(init(pid))
    inside.raise_loopback(init(pid))
    assert inside.loopback_up(pid) is True


def test_ended_process_is_absent_and_cannot_be_changed(inside: NamespaceInside) -> None:
    with process("unshare", *PLAIN, "--fork", "sleep", "1000") as pid:
        pass
    assert inside.hostname(pid) is None
    assert inside.sysctl(pid, "net.core.somaxconn") is None
    assert inside.loopback_up(pid) is None
    assert inside.hostname(0) is None
    with pytest.raises(StepFailed, match=rf"process {pid}: .*errno 3"):
        inside.set_hostname(init(pid), "x")
    with pytest.raises(StepFailed, match=str(pid)):
        inside.mount(init(pid), {"destination": "/tmp", "type": "tmpfs"})


def test_nothing_of_the_host_is_changed(inside: NamespaceInside, tmp_path: Path) -> None:
    """A process that shares the host's namespaces is not a way to change the host."""
    own, host = os.getpid(), os.uname().nodename
    for change in (
        lambda: inside.set_hostname(init(own), "t-wrong"),
        lambda: inside.set_sysctl(init(own), "net.core.somaxconn", "1"),
        lambda: inside.raise_loopback(init(own)),
        lambda: inside.mount(init(own), {"destination": str(tmp_path), "type": "tmpfs"}),
    ):
        with pytest.raises(StepFailed, match="refused"):
            change()
    assert os.uname().nodename == host
    assert not mountinfo("self", str(tmp_path))


def test_another_process_with_the_pid_is_left_alone(
    inside: NamespaceInside, pid: int, tmp_path: Path
) -> None:
    """A pid that was looked at a moment ago may belong to somebody else when something is to be changed."""
    before = Init(pid, init(pid).start_time - 1)
    changes = (
        lambda: inside.set_hostname(before, "t-wrong"),
        lambda: inside.set_sysctl(before, "net.core.somaxconn", "1"),
        lambda: inside.raise_loopback(before),
        lambda: inside.mount(before, {"destination": str(tmp_path), "type": "tmpfs"}),
        lambda: inside.unmount(before, "/proc"),
    )
    for change in changes:
        with pytest.raises(StepFailed, match=r"another process by now|errno 3"):
            change()
    assert inside.hostname(pid) == os.uname().nodename
    assert not mountinfo(pid, str(tmp_path))


def test_bind_read_only(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "here").touch()
    options = ["rbind", "ro", "nosuid", "nodev", "noexec"]
    inside.mount(init(pid), {"destination": str(target), "source": str(source), "options": options})
    [fields] = mountinfo(pid, str(target))
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(fields[5].split(","))
    assert fields[6] == "-", "propagation is private: no optional fields"
    assert os.listdir(f"/proc/{pid}/root{target}") == ["here"]
    with pytest.raises(OSError, match="Read-only"):
        Path(f"/proc/{pid}/root{target}/new").touch()
    assert not mountinfo("self", str(target))


def test_bind_of_one_file_writable(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("outer")
    target.touch()
    inside.mount(
        init(pid), {"destination": str(target), "type": "bind", "source": str(source), "options": ["rw"]}
    )
    Path(f"/proc/{pid}/root{target}").write_text("inner")
    assert source.read_text() == "inner"
    assert target.read_text() == ""


def test_mount_covers_what_is_there(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    for size in ("64k", "128k"):
        options = [f"size={size}", "mode=700", "noatime"]
        inside.mount(init(pid), {"destination": str(tmp_path), "type": "tmpfs", "options": options})
    assert [fields[-1].count("size=128k") for fields in mountinfo(pid, str(tmp_path))] == [0, 1]
    assert "noatime" in mountinfo(pid, str(tmp_path))[1][5]


def test_what_a_path_leads_to(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    """By what is mounted there last, links followed; a directory on a mount is no mount; files too."""
    source, other, target = tmp_path / "source", tmp_path / "other", tmp_path / "tar get"
    for each in (source, other, target):
        each.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    sources = {str(link): str(source)}
    assert inside.mounts(pid, sources) == {}
    inside.mount(
        init(pid), {"destination": str(link), "source": str(source), "options": ["rbind", "ro", "nodev"]}
    )
    seen = (inside.mounts(pid, sources) or {})[str(link)]
    assert seen.shows is True
    assert {"ro", "nodev"} <= seen.options
    source.rmdir()
    source.mkdir()
    assert (inside.mounts(pid, sources) or {})[str(link)].shows is False, "another directory of that name"
    source.rmdir()
    assert (inside.mounts(pid, sources) or {})[str(link)].shows is None, "nothing to compare with"
    inside.unmount(init(pid), str(link))
    for _ in range(2):
        inside.mount(init(pid), {"destination": str(target), "type": "tmpfs", "options": []})
    assert (inside.mounts(pid, {str(link): ""}) or {})[str(link)].kind == "tmpfs"
    for _ in range(3):
        inside.unmount(init(pid), str(link))
    assert inside.mounts(pid, {str(link): "", "/t-missing": ""}) == {"/t-missing": NOWHERE}
    assert not mountinfo("self", str(target))


def test_options_change_in_place(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    mount = {"destination": str(tmp_path), "type": "tmpfs", "options": ["rw", "nosuid"]}
    inside.mount(init(pid), mount)
    Path(f"/proc/{pid}/root{tmp_path}/kept").touch()
    inside.set_mount_options(init(pid), {**mount, "options": ["ro", "rro", "nodev", "size=1m"]})
    [fields] = mountinfo(pid, str(tmp_path))
    assert {"ro", "nosuid", "nodev"} <= set(fields[5].split(","))
    assert os.listdir(f"/proc/{pid}/root{tmp_path}") == ["kept"]


def test_read_only_reaches_what_is_mounted_below(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    """Bind a tree of the container's own: what is mounted in its namespace is not in the host's."""
    inner = tmp_path / "inner"
    inner.mkdir()
    inside.mount(init(pid), {"destination": str(inner), "type": "tmpfs", "options": ["rw"]})
    inside.set_mount_options(init(pid), {"destination": "/", "options": ["rro", "rnosuid"]})
    [fields] = mountinfo(pid, str(inner))
    assert {"ro", "nosuid"} <= set(fields[5].split(","))
    assert "ro" not in mountinfo("self", "/")[-1][5].split(",")


def test_tmpfs_belongs_to_the_containers_root(inside: NamespaceInside, tmp_path: Path) -> None:
    """In a user namespace whose root is another id outside, that id owns the file system."""
    with process("unshare", "-U", "-m", "--fork", "sleep", "1000") as pid:
        Path(f"/proc/{pid}/uid_map").write_text("0 100000 1000")
        Path(f"/proc/{pid}/gid_map").write_text("0 200000 1000")
        mount = {"destination": str(tmp_path), "type": "tmpfs", "options": ["mode=755", "gid=5"]}
        inside.mount(init(pid), mount)
        seen = os.stat(f"/proc/{pid}/root{tmp_path}")
        assert (seen.st_uid, seen.st_gid) == (100000, 200005)
        with pytest.raises(StepFailed, match="uid 70000 does not exist in the container"):
            inside.mount(init(pid), {**mount, "options": ["uid=70000"]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"destination": "/t-missing"}, "/t-missing: .*errno 2"),
        ({"type": "bind", "source": "/t-missing"}, "source /t-missing: .*errno 2"),
        ({"type": "bind", "source": "/etc", "options": ["colour=blue"]}, "colour=blue unknown"),
        ({"options": ["size=abc"]}, "size.*errno 22"),
        ({"type": "ext4", "source": "/dev/null"}, "ext4"),
    ],
)
def test_impossible_mounts_say_why(
    inside: NamespaceInside, pid: int, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(StepFailed, match=message):
        inside.mount(init(pid), {"destination": str(tmp_path), "type": "tmpfs", **changed})
    assert not mountinfo(pid, str(tmp_path))


def test_symlinks_stay_below_the_containers_root(inside: NamespaceInside, tmp_path: Path) -> None:
    jail, outside = tmp_path / "jail", tmp_path / "outside"
    outside.mkdir()
    (jail / str(outside)[1:]).mkdir(parents=True)
    (jail / "absolute").symlink_to(outside)
    (jail / "climbing").symlink_to(f"../../../../../../../..{outside}")
    (jail / "magic").symlink_to(f"/proc/self/root{outside}")
    with process("unshare", "-m", "--fork", "sh", "-ec", JAIL, str(jail)) as pid:
        for link in ("/absolute", "/climbing"):
            inside.mount(init(pid), {"destination": link, "type": "tmpfs", "options": []})
        assert len(mountinfo(pid, str(outside))) == 2, "both landed on the jail's directory of that name"
        with pytest.raises(StepFailed, match=f"errno {errno.ELOOP}"):
            inside.mount(init(pid), {"destination": "/magic", "type": "tmpfs", "options": []})
    assert not mountinfo("self", str(outside))


def test_every_thread_of_ours_is_home_afterwards(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    inside.mount(init(pid), {"destination": str(tmp_path), "type": "tmpfs"})
    inside.raise_loopback(init(pid))
    inside.set_sysctl(init(pid), "kernel.msgmax", "4444")
    with pytest.raises(StepFailed):
        inside.set_hostname(init(pid), "x" * 100)
    for kind in ("net", "ipc", "uts", "mnt"):
        seen = {os.stat(f"/proc/self/task/{task}/ns/{kind}").st_ino for task in os.listdir("/proc/self/task")}
        assert seen == {os.stat(f"/proc/{os.getppid()}/ns/{kind}").st_ino}
    assert {os.readlink(f"/proc/self/task/{task}/root") for task in os.listdir("/proc/self/task")} == {"/"}


def test_many_threads_get_their_own_answers(inside: NamespaceInside) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        pids = [stack.enter_context(process("unshare", "-u", "--fork", "sleep", "1000")) for _ in range(4)]
        list(pool.map(lambda pid: inside.set_hostname(init(pid), f"t-{pid}"), pids))
        assert list(pool.map(inside.hostname, pids * 100)) == [f"t-{pid}" for pid in pids] * 100


def test_no_descriptor_is_left_open(inside: NamespaceInside, pid: int, tmp_path: Path) -> None:
    def everything() -> None:
        inside.hostname(pid)
        inside.loopback_up(pid)
        inside.mount(init(pid), {"destination": str(tmp_path), "type": "tmpfs"})
        for bad in (
            {"options": ["size=x"]},
            {"destination": "/t-missing"},
            {"type": "bind", "source": "/no"},
        ):
            with pytest.raises(StepFailed):
                inside.mount(init(pid), {"destination": str(tmp_path), "type": "tmpfs", **bad})

    everything()
    before = len(os.listdir("/proc/self/fd"))
    everything()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_on_the_way_is_not_asked(inside: NamespaceInside, tmp_path: Path) -> None:
    """It would never answer; what is mounted beside it, or by masu on top of it, is seen all the same."""
    places = {each: tmp_path / each for each in ("above", "beside")}
    for each in places.values():
        (each / "below").mkdir(parents=True)
    targets = {name: f"{each}/below" for name, each in places.items()}
    with process("unshare", "-m", "--fork", "sleep", "1000") as pid:
        for each in targets.values():
            inside.mount(init(pid), {"destination": each, "type": "tmpfs", "options": []})
        with silent(pid, str(places["above"])):
            before = time.monotonic()
            found = inside.mounts(pid, dict.fromkeys([*targets.values(), str(places["above"])], "")) or {}
            assert found.keys() == {targets["beside"], str(places["above"])}
            assert (found[targets["beside"]].kind, found[str(places["above"])].kind) == ("tmpfs", "fuse")
            with pytest.raises(StepFailed, match=r"a program of its own \(FUSE\), which may never answer"):
                inside.mount(init(pid), {"destination": targets["above"], "type": "tmpfs", "options": []})
            inside.mount(init(pid), {"destination": str(places["above"]), "type": "tmpfs", "options": []})
            assert time.monotonic() - before < 4


def test_a_program_in_the_place_of_a_device_is_not_asked(tmp_path: Path) -> None:
    script = "mount -t tmpfs t /dev; mkdir /dev/node /dev/other; exec sleep 1000"
    nodes = DeviceNodes(str(tmp_path), Visits())
    with process("unshare", "-m", "--fork", "sh", "-ec", script) as pid:
        with silent(pid, "/dev/node"):
            found = nodes.look("web", pid, ["node", "other"]) or {}
            assert "(FUSE)" in found["node"].obstacle
            assert found["other"].obstacle == "a directory of the container's own is there"
        with silent(pid, "/dev"):
            found = nodes.look("web", pid, ["other"]) or {}
            assert "(FUSE)" in found["other"].obstacle
