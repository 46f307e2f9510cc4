"""Every aspect on the real kernel: set at birth, seen from /proc and from inside, repaired, and read back."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, container, knob, set_knob, until


def _inside(masu: Masu, script: str, name: str = "web") -> str:
    done = masu.run("exec", name, "--", "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _space(pid: int | str, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


@pytest.mark.on_v2
def test_limits_are_in_the_kernel_and_each_is_repaired(masu: Masu) -> None:
    limits = {
        "cpu": {"max": "0.5", "weight": 200, "cpus": "0", "mems": "0"},
        "memory": {"max": "64Mi", "high": "32Mi", "swap": "16Mi"},
        "pids": {"max": 33},
    }
    masu.write(container(limits=limits))
    masu.start()
    masu.running()
    until(lambda: masu.status()["converged"], f"converged: {masu.status()}")
    wrong = {
        knob(masu, "web", "pids/pids.max", "pids.max"): "44",
        knob(masu, "web", "cpu/cpu.shares", "cpu.weight"): "77",
        knob(masu, "web", "memory/memory.soft_limit_in_bytes", "memory.high"): str(50 << 20),
        knob(masu, "web", "memory/memory.memsw.limit_in_bytes", "memory.swap.max"): str(200 << 20),
        knob(masu, "web", "cpuset/cpuset.cpus", "cpuset.cpus"): "0-1",
    }
    for path, value in wrong.items():
        before = path.read_text()
        set_knob(path, value)
        until(lambda p=path, b=before: p.read_text() == b, f"{path} repaired")  # type: ignore[misc]


@pytest.mark.on_v2_long
def test_namespaces_private_host_and_shared(either: Masu) -> None:
    either.write(
        container("own"),
        container(
            "open", namespaces={"pid": "host", "ipc": "host", "net": "host", "uts": "host", "cgroup": "host"}
        ),
        container(
            "guest", namespaces={"net": "container:own", "ipc": "container:own", "pid": "container:own"}
        ),
    )
    assert either.apply().returncode == 0, either.apply().stderr
    own, opened, guest = (either.pid(name) for name in ("own", "open", "guest"))
    for kind in ("pid", "ipc", "net", "uts", "cgroup", "mnt"):
        assert _space(own, kind) != _space("self", kind), kind
    for kind in ("pid", "ipc", "net", "uts", "cgroup"):
        assert _space(opened, kind) == _space("self", kind), kind
    for kind in ("pid", "ipc", "net"):
        assert _space(guest, kind) == _space(own, kind), kind
    assert "127.0.0.1" in _inside(either, "ifconfig lo", "own"), "loopback is up"


def test_a_guest_follows_its_host_container(masu: Masu) -> None:
    """When the one whose semaphores and memory it shares is started anew, the guest is, too."""
    masu.write(container("own"), container("guest", namespaces={"ipc": "container:own"}))
    masu.start()
    own, guest = masu.running("own"), masu.running("guest")
    os.kill(own, 9)
    own = masu.restarted(own, "own")
    guest = masu.restarted(guest, "guest")
    until(lambda: _space(masu.pid("guest"), "ipc") == _space(masu.pid("own"), "ipc"), "they share again")


@pytest.mark.on_v2_long
def test_a_network_namespace_outlives_its_container(either: Masu) -> None:
    """Whoever shares it goes on, and the new process is in the same one."""
    either.write(container("own"), container("guest", namespaces={"net": "container:own"}))
    either.start()
    own, guest = either.running("own"), either.running("guest")
    before = _space(own, "net")
    os.kill(own, 9)
    own = either.restarted(own, "own")
    assert _space(own, "net") == before == _space(guest, "net")
    assert either.pid("guest") == guest


def test_a_namespace_that_nobody_keeps_any_more_is_kept_again(masu: Masu) -> None:
    """As after an update from a version that left it to the runtime: no restart."""
    masu.write(container())
    assert masu.apply().returncode == 0
    pid, kept = masu.pid(), f"/run/masu/{masu.instance}/netns/web"
    subprocess.run(["umount", kept], check=True, timeout=10)
    assert masu.status()["drift"][0]["key"] == "namespaces.net"
    assert masu.apply().returncode == 0
    assert (masu.pid(), os.stat(kept).st_ino) == (pid, _space(pid, "net"))


def test_lowered_loopback_is_raised(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    subprocess.run(
        ["nsenter", f"--net=/proc/{masu.pid()}/ns/net", "ip", "link", "set", "lo", "down"],
        check=True,
        timeout=10,
    )
    assert [each["key"] for each in masu.status()["drift"]] == ["namespaces.loopback"]
    assert masu.apply().returncode == 0
    assert "UP" in _inside(masu, "ifconfig lo")


@pytest.mark.on_v2_long
def test_user_namespace_with_a_leased_range(either: Masu) -> None:
    """Root inside is nobody outside; files of the pristine rootfs are root's inside; writes go to the layer."""
    either.write(
        container("one", namespaces={"user": "auto"}),
        container("two", namespaces={"user": "auto"}, rootfs={"writable": "readOnly"}),
    )
    done = either.apply()
    assert done.returncode == 0, done.stderr
    starts = []
    for name in ("one", "two"):
        inside, outside, size = Path(f"/proc/{either.pid(name)}/uid_map").read_text().split()
        assert (inside, size) == ("0", "65536")
        assert int(outside) >= 0x70000000
        starts.append(outside)
        assert _inside(either, "stat -c %u /bin/busybox", name) == "0"
    assert len(set(starts)) == 2, "two containers never share a range"
    assert _inside(either, "touch /data/x && stat -c %u /data/x", "one") == "0"
    assert either.run("exec", "two", "--", "touch", "/data/x").returncode != 0


def test_explicit_user_map(masu: Masu) -> None:
    ranges = [{"container": 0, "host": 700000, "size": 1000}]
    masu.write(container(namespaces={"user": {"uids": ranges, "gids": ranges}}))
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    assert Path(f"/proc/{masu.pid()}/uid_map").read_text().split() == ["0", "700000", "1000"]


@pytest.mark.on_v2_long
def test_time_namespace_offsets(either: Masu) -> None:
    either.write(container(namespaces={"time": {"boottime": "10d", "monotonic": "5s"}}))
    done = either.apply()
    assert done.returncode == 0, done.stderr
    offsets = dict(
        line.split()[:2] for line in Path(f"/proc/{either.pid()}/timens_offsets").read_text().splitlines()
    )
    assert offsets == {"boottime": str(10 * 86400), "monotonic": "5"}
    uptime = float(_inside(either, "cut -d' ' -f1 /proc/uptime"))
    assert uptime > 10 * 86400


def test_hostname_and_sysctls_change_live_and_are_repaired(either: Masu) -> None:
    spec = {"hostname": "first", "sysctls": {"net.core.somaxconn": "64", "kernel.msgmax": "4096"}}
    either.write(container(**spec))
    either.start("--resync", "1s")
    pid = either.running()
    assert _inside(either, "hostname; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax").split() == [
        "first",
        "64",
        "4096",
    ]
    either.write(container(hostname="second", sysctls={"net.core.somaxconn": "65", "kernel.msgmax": "4096"}))
    until(lambda: _inside(either, "hostname") == "second", "a new host name")
    until(lambda: _inside(either, "cat /proc/sys/net/core/somaxconn") == "65", "a new value")
    assert either.pid() == pid
    subprocess.run(["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname", "wrong"], check=True, timeout=10)
    until(lambda: _inside(either, "hostname") == "second", "repaired by the resync")


def test_mounts_and_rootfs(either: Masu, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "hello").write_text("hi\n")
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    either.write(
        container(
            mounts=[
                {"source": str(shared), "target": "/mnt", "readOnly": True},
                {"source": str(shared), "target": "/srv"},
                {"tmpfs": "/tmp", "size": "1Mi"},
            ]
        )
    )
    done = either.apply()
    assert done.returncode == 0, done.stderr
    assert _inside(either, "cat /mnt/hello") == "hi"
    assert either.run("exec", "web", "--", "touch", "/mnt/x").returncode != 0
    _inside(either, "echo y > /srv/y; echo z > /root/z")
    assert (shared / "y").read_text() == "y\n"
    assert not Path("/opt/masu/rootfs/busybox/root/z").exists(), "the rootfs stays pristine"
    assert _inside(either, "df -k /tmp | tail -1 | awk '{print $2}'") == "1024"
    assert str(shared) not in Path("/proc/self/mounts").read_text(), "nothing of it shows on the host"

    subprocess.run(
        ["nsenter", f"--mount=/proc/{either.pid()}/ns/mnt", "--", "/bin/busybox", "umount", "/mnt"],
        check=True,
        timeout=10,
    )
    assert [each["key"] for each in either.status()["drift"]] == ["mounts./mnt"]
    pid = either.pid()
    assert either.apply().returncode == 0
    assert _inside(either, "cat /mnt/hello") == "hi"
    assert either.pid() == pid, "a mount is put back without a restart"


def test_rootfs_read_only_and_direct(masu: Masu, tmp_path: Path) -> None:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "/opt/masu/rootfs/busybox", str(root)], check=True, timeout=60)
    masu.write(
        container("ro", rootfs={"path": str(root), "writable": "readOnly"}),
        container("direct", rootfs={"path": str(root), "writable": "direct"}),
    )
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    assert masu.run("exec", "ro", "--", "touch", "/data/x").returncode != 0
    _inside(masu, "touch /data/direct", "direct")
    assert (root / "data/direct").exists()


def test_process_rights(either: Masu) -> None:
    process = {
        "user": "1000:1000",
        "cwd": "/home",
        "env": {"GREETING": "hello world"},
        "rlimits": {"nofile": 100, "core": {"soft": 0, "hard": 0}},
        "capabilities": {"drop": ["ALL"]},
    }
    either.write(
        container(process=process), container("root", process={"capabilities": {"add": ["SYS_TIME"]}})
    )
    done = either.apply()
    assert done.returncode == 0, done.stderr
    status = Path(f"/proc/{either.pid()}/status").read_text()
    fields = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
    assert fields["Uid"] == ["1000"] * 4
    assert fields["CapBnd"] == ["0000000000000000"]
    assert fields["NoNewPrivs"] == ["1"]
    assert fields["Seccomp"] == ["2"]
    assert "GREETING=hello world" in Path(f"/proc/{either.pid()}/environ").read_text().split("\0")
    assert os.readlink(f"/proc/{either.pid()}/cwd") == "/home"
    limits = Path(f"/proc/{either.pid()}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [
        ["100", "100"]
    ]
    capabilities = Path(f"/proc/{either.pid('root')}/status").read_text()
    effective = next(
        int(line.split()[1], 16) for line in capabilities.splitlines() if line.startswith("CapEff")
    )
    assert effective >> 25 & 1, "CAP_SYS_TIME was added"
    assert not effective >> 21 & 1, "CAP_SYS_ADMIN is not among the defaults"
    assert _inside(either, "cat /proc/timer_list | wc -c", "root") == "0", "masked"
    refused = either.run("exec", "root", "--", "unshare", "-U", "/bin/true")
    assert refused.returncode != 0, "the seccomp profile holds for exec, too"


def test_processes_moved_out_are_brought_back(masu: Masu) -> None:
    masu.write(container(limits={"pids": {"max": 20}}))
    masu.start("--resync", "1s")
    pid = masu.running()
    home = knob(masu, "web", "pids/cgroup.procs", "cgroup.procs")
    set_knob(home.parents[3] / "cgroup.procs", str(pid))
    until(lambda: str(pid) in home.read_text().split(), "brought back")


def test_a_removed_cgroup_of_a_stopped_container_is_made_again(masu: Masu) -> None:
    masu.write(container(state="stopped", limits={"pids": {"max": 20}}))
    masu.start("--resync", "1s")
    path = knob(masu, "web", "pids/pids.max", "pids.max")
    until(path.exists, "made")
    path.parent.rmdir()
    until(lambda: path.exists() and path.read_text() == "20\n", "made again, with its limit")


@pytest.mark.on_v2
@pytest.mark.alone
def test_weights_share_a_cpu_as_they_say(masu: Masu) -> None:
    """A hog and whoever is in a hurry, 1:9 on one cpu: a tenth, and nine tenths."""
    busy = {"args": ["/bin/sh", "-c", "while :; do :; done"]}
    shares = {"hog": 100, "hurry": 900}
    masu.write(
        *(
            container(name, process=busy, limits={"cpu": {"cpus": "0", "weight": weight}})
            for name, weight in shares.items()
        )
    )
    assert masu.apply().returncode == 0
    pids = {name: masu.pid(name) for name in shares}
    before = {name: _cpu_ticks(pid) for name, pid in pids.items()}
    time.sleep(5)
    used = {name: _cpu_ticks(pid) - before[name] for name, pid in pids.items()}
    assert sum(used.values()) > 20, "they did run"
    assert abs(used["hog"] / sum(used.values()) - 0.1) <= 0.02, used


def _cpu_ticks(pid: int) -> int:
    """proc_pid_stat(5), utime and stime."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])
