"""The promises of the README, one test each; promise 9 comes with checkpoints."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.e2e.harness import (
    CHECKOUT,
    Masu,
    NetworkedMasu,
    container,
    knob,
    memory_max,
    network,
    set_knob,
    until,
    volume,
)

WRITES = re.compile(
    r"\b(openat?|creat|mkdir(at)?|rmdir|unlink(at)?|rename(at2?)?|mount|umount2?|setns|unshare|kill|"
    r"pidfd_send_signal|sethostname|truncate|ftruncate|symlink(at)?|link(at)?|chmod|fchmod(at)?|f?chown(at)?|"
    r"move_mount|fsmount|mknod(at)?|utimensat|write|pwrite64|sendto|sendmsg|connect)\("
    r"|\bbpf\(BPF_PROG_(?:LOAD|ATTACH|DETACH)"
)
NETLINK_SOCKET = re.compile(r"socket\(AF_NETLINK, [^,]+, (NETLINK_\w+)\)\s+= \d+<\w+:\[(\d+)\]>")
NETLINK_MESSAGE = re.compile(r"send(?:to|msg)\(\d+<\w+:\[(\d+)\]>.*?nlmsg_type=([^ ,]+)")
UNFINISHED = " <unfinished ...>"
NFT_QUESTIONS = {1, 4, 7, 10, 13, 16, 19, 23}
"""GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN, GETOBJ and GETFLOWTABLE: linux/netfilter/nf_tables.h."""
OPEN_FOR_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")


def _writes(trace: str) -> list[str]:
    """System calls in an strace log that change anything but the traced program's own standard streams."""
    found = []
    lines = list(_whole(trace))
    protocols = {inode: protocol for protocol, inode in NETLINK_SOCKET.findall("\n".join(lines))}
    for line in lines:
        if not WRITES.search(line) or " = -1 " in line:
            continue
        if "open" in line.split("(")[0]:
            if OPEN_FOR_WRITING.search(line) and "/dev/null" not in line and "/dev/tty" not in line:
                found.append(line)
        elif re.search(r"\b(p?write(64)?)\([12],", line) or re.search(r"setns\(", line):
            continue  # its own output; a visit to a namespace changes nothing
        elif re.search(r"\bp?write(64)?\(\d+<(pipe|anon_inode)", line) or "unshare(CLONE_FS" in line:
            continue  # between its own threads
        elif _asks(line, protocols):
            continue
        else:
            found.append(line)
    return found


def _whole(trace: str) -> Iterator[str]:
    """Its lines, with calls in one piece that strace tells of in two because another thread called meanwhile.

    Before the result of such a call it leaves a gap, as it does after a short one.
    """
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        if rest.endswith(UNFINISHED):
            begun[thread] = line.removesuffix(UNFINISHED)
        elif " resumed>" in rest and thread in begun:
            yield begun.pop(thread) + rest.partition(" resumed>")[2]
        else:
            yield line
    yield from begun.values()


def _asks(line: str, protocols: Mapping[str, str]) -> bool:
    """Whether it sends a question of netlink; strace shows a type as a number where it cannot tell."""
    message = NETLINK_MESSAGE.search(line)
    if not message:
        return False
    protocol, word = protocols.get(message[1]), message[2]
    if not word.startswith("0x"):
        return "_GET" in word or word == "SOCK_DIAG_BY_FAMILY"
    kind = int(word, 16)
    return (
        protocol == "NETLINK_SOCK_DIAG"
        or (protocol == "NETLINK_ROUTE" and kind % 4 == 2)  # RTM_GET…
        or (protocol == "NETLINK_NETFILTER" and kind & 0xFF in NFT_QUESTIONS)
    )


def test_1_plan_and_validate_write_nothing(masu: Masu, tmp_path: Path) -> None:
    """Every system call of both is traced, in a world that differs from the spec."""
    devices = [
        {"path": "/dev/cpu_dma_latency"},
        {"match": {"subsystem": "tty", "name": "tty0"}, "optional": True},
    ]
    masu.write(
        volume("data", size="16Mi"),
        container(
            limits={"memory": {"max": "64Mi"}},
            hostname="box",
            sysctls={"net.core.somaxconn": "64"},
            devices=devices,
        ),
    )
    assert masu.apply().returncode == 0
    set_knob(memory_max(masu), str(1 << 30))
    masu.write(
        volume("data", size="32Mi"),
        volume("more", size="16Mi"),
        container(limits={"memory": {"max": "32Mi"}}, devices=devices[1:]),
        container("new", rootfs={"size": "16Mi"}, mounts=[{"volume": "more", "target": "/data"}]),
    )
    before = _tree(masu)
    for verb, code in (("plan", 2), ("validate", 0)):
        assert _writes(_traced(masu, tmp_path, verb, code)) == []
    assert _tree(masu) == before


def test_1_plan_writes_nothing_to_the_network(networked: NetworkedMasu, tmp_path: Path) -> None:
    budget = {"max": "10Mbit"}
    front = network("front", subnets=["10.88.0.0/24"], egress=budget, policy={"within": "deny"})
    web = {"networks": [{"network": "front", "egress": {"min": "1Mbit"}}], "ports": ["8080:80"]}
    networked.write(front, container(**web))
    assert networked.apply().returncode == 0
    networked.inside("web", "ip", "addr", "flush", "dev", "eth0")
    networked.inside("", "nft", "flush", "ruleset")
    networked.write(front, container(**web), container("new", **{**web, "ports": ["8081:80"]}))
    before = networked.inside("", "ip", "-br", "addr") + networked.inside("web", "ip", "-br", "addr")
    assert _writes(_traced(networked, tmp_path, "plan", 2)) == []
    assert before == networked.inside("", "ip", "-br", "addr") + networked.inside("web", "ip", "-br", "addr")
    assert networked.inside("", "nft", "list", "ruleset") == ""


def _traced(masu: Masu, directory: Path, verb: str, code: int) -> str:
    """Every system call of one command on the source, whose exit code must be this."""
    trace = directory / f"{verb}.strace"
    argv = ["strace", "-f", "-y", "-qq", "-o", str(trace), sys.executable, "-B", "-m", "controller"]
    done = subprocess.run(
        [*masu.prefix(), *argv, "--instance", masu.instance, verb, str(masu.source)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert trace.read_text().count("\n") > 100, "the trace is real"
    return trace.read_text()


def _tree(masu: Masu) -> dict[str, int]:
    roots = [Path("/run/masu") / masu.instance, Path("/var/lib/masu") / masu.instance]
    return {
        str(path): path.lstat().st_mtime_ns
        for root in roots
        for path in root.rglob("*")
        if "keeper" not in str(path)
    }


def test_2_twice_is_once(masu: Masu, tmp_path: Path) -> None:
    """A converged state: an empty plan, exit 0, and a second apply that writes nothing but its own lock."""
    masu.write(
        volume("data", size="16Mi", owner="7:7"),
        container(
            rootfs={"size": "16Mi"},
            hostname="box",
            limits={
                "memory": {"max": "100000001"},
                "cpu": {"max": "0.5", "weight": 50, "cpus": "0"},
                "pids": {"max": 9},
            },
            sysctls={"net.core.somaxconn": "64"},
            mounts=[{"tmpfs": "/tmp", "size": "1Mi"}, {"volume": "data", "target": "/data"}],
            namespaces={"user": "auto", "time": {"boottime": "10d"}},
        ),
    )
    assert masu.apply().returncode == 0
    assert masu.plan()["changes"] == []
    before, pid = _tree(masu), masu.pid()
    writes = _writes(_traced(masu, tmp_path, "apply", 0))
    assert [line for line in writes if "controller.lock" not in line] == []
    assert {path for path, at in _tree(masu).items() if before.get(path) != at} <= {
        f"/run/masu/{masu.instance}/controller.lock"
    }
    assert masu.pid() == pid


def test_4_the_controller_is_not_the_workload(masu: Masu) -> None:
    """SIGTERM, SIGKILL and a restart leave the container, and it is adopted."""
    masu.write(container(limits={"memory": {"max": "64Mi"}}))
    masu.start()
    pid = masu.running()
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        masu.stop(number)
        assert masu.pid() == pid
        set_knob(memory_max(masu), str(1 << 30))
        masu.start()
        until(lambda: memory_max(masu).read_text().strip() == str(64 << 20), "adopted and repaired")
        assert masu.pid() == pid
    os.kill(pid, signal.SIGKILL)
    masu.restarted(pid)


def test_4_an_exit_code_survives_the_controller(masu: Masu) -> None:
    """The container ends while no controller runs; the next one knows how."""
    masu.write(
        container(process={"args": ["/bin/sh", "-c", "sleep 1; exit 42"]}, restart={"policy": "never"})
    )
    masu.start()
    masu.running()
    masu.stop(signal.SIGKILL)
    until(lambda: not masu.pid(), "it has ended")
    masu.start()
    until(lambda: masu.status().get("exitCode") == 42, "the exit code is known")


def test_5_one_bad_file_stays_one_bad_file(masu: Masu) -> None:
    """Reported with position; its last good version runs on, also across a restart; the other follows its file."""
    masu.write(container("good", limits={"pids": {"max": 10}}), file="good.yaml")
    masu.write(container("bad", limits={"pids": {"max": 10}}), file="bad.yaml")
    masu.start()
    good, bad = masu.running("good"), masu.running("bad")
    masu.write_text(
        "apiVersion: masu/v1\nkind: Container\nmetadata: {name: bad}\nspec: {rootfs: 3}\n", "bad.yaml"
    )
    masu.write(container("good", limits={"pids": {"max": 11}}), file="good.yaml")
    until(lambda: "bad.yaml:4:" in masu.run("status").stdout, "reported with file:line")
    until(lambda: masu.status("good")["converged"], "the other follows")
    for _ in range(2):
        assert (masu.pid("good"), masu.pid("bad")) == (good, bad)
        assert masu.status("bad")["converged"]
        masu.stop(signal.SIGKILL)
        masu.start()
        until(lambda: "Ready" in masu.log(), "up again")
        time.sleep(0.3)
    masu.write(container("bad", limits={"pids": {"max": 12}}), file="bad.yaml")
    until(lambda: not masu.run("status").stdout.count("rejected"), "mended")


def test_6_silence_is_not_deletion(masu: Masu) -> None:
    """Emptied, vanished, back again: the container never notices."""
    file = masu.write(container())
    masu.start()
    pid = masu.running()
    file.unlink()
    until(lambda: "source frozen" in masu.run("status").stdout, "an empty source is frozen")
    shutil.rmtree(masu.source)
    until(lambda: masu.log().count("SourceFrozen") >= 2, "a vanished source is frozen")
    masu.stop()
    masu.start()
    time.sleep(0.5)
    assert masu.pid() == pid
    masu.source.mkdir()
    masu.write(container(limits={"pids": {"max": 77}}))
    until(lambda: "SourceBack" in masu.log(), "the source is back")
    until(lambda: masu.status()["converged"], "and followed")
    assert masu.pid() == pid


def test_6_a_mass_removal_is_refused(masu: Masu) -> None:
    masu.write(*[container(f"c{index}") for index in range(5)])
    assert masu.apply().returncode == 0
    masu.write(container("c0"))
    refused = masu.apply()
    assert refused.returncode == 4
    assert "--allow-removals" in refused.stderr
    assert masu.run("plan", str(masu.source)).returncode == 4
    assert all(masu.pid(f"c{index}") for index in range(5))
    assert masu.apply("--allow-removals").returncode == 0
    assert [index for index in range(5) if masu.pid(f"c{index}")] == [0]


def test_7_what_you_did_not_write_masu_does_not_own(masu: Masu) -> None:
    """A knob that no spec names stays as somebody set it; foreign groups beside ours outlive all that we do."""
    masu.write(container(limits={"pids": {"max": 10}}))
    masu.start("--resync", "200ms")
    masu.running()
    ours = memory_max(masu)
    above = ours.parents[3]
    beside = [above / "masu" / f"{masu.instance}-x" / ours.name, above / f"{masu.instance}-y" / ours.name]
    try:
        for limit in (ours, *beside):
            limit.parent.mkdir(exist_ok=True)
            set_knob(limit, str(128 << 20))
        time.sleep(1)
        assert masu.status()["drift"] == []
        assert [each.read_text().strip() for each in (ours, *beside)] == [str(128 << 20)] * 3
        masu.stop()
        assert masu.run("down", "--all").returncode == 0
        assert [each.read_text().strip() for each in beside] == [str(128 << 20)] * 2
    finally:
        for limit in beside:
            limit.parent.rmdir()


def test_8_a_refused_write_is_shown_with_path_value_and_errno(masu: Masu) -> None:
    """On v1 a group below ours holds its cpus back. (v2 takes whatever the spec allows, so no mark on_v2.)"""
    cpus = knob(masu, "web", "cpuset/cpuset.cpus", "cpuset.cpus")
    masu.write(container(limits={"cpu": {"cpus": "0-1"}}))
    masu.start("--resync", "200ms")
    pid = masu.running()
    below = cpus.parent / "below"
    below.mkdir()
    try:
        set_knob(below / "cpuset.cpus", "1")
        masu.write(container(limits={"cpu": {"cpus": "0"}}))
        said = until(lambda: [c for c in masu.status()["conditions"] if c["reason"] == "KnobRefused"], "told")
        for part in (str(cpus), "'0'", "errno 16"):
            assert part in said[0]["message"]
        assert masu.pid() == pid
    finally:
        below.rmdir()
    until(lambda: cpus.read_text().strip() == "0", "tried again")


def test_8_a_limit_below_use_is_refused_unless_forced(masu: Masu) -> None:
    """A memory limit below use would kill: the author has to insist."""
    eater = {
        "args": ["/bin/sh", "-c", "x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 100000; :"]
    }  # not the last command, or it would be exec'd
    masu.write(container(process=eater, limits={"memory": {"max": "256Mi"}}))
    masu.start()
    pid = masu.running()
    used = memory_max(masu).parent
    current = used / (
        "memory.usage_in_bytes" if (used / "memory.usage_in_bytes").exists() else "memory.current"
    )
    until(lambda: int(current.read_text()) > 30_000_000, "it has eaten")
    masu.write(container(process=eater, limits={"memory": {"max": "8Mi"}}))
    refused = until(
        lambda: [c for c in masu.status()["conditions"] if c["reason"] == "GuardRefused"],
        lambda: f"guarded; {current.read_text()} {masu.run('status', 'web').stdout} {masu.log()}",
    )
    assert "in use" in refused[0]["message"]
    assert memory_max(masu).read_text().strip() == str(256 << 20)
    assert masu.pid() == pid
    assert not masu.status()["converged"]


def test_10_repair_does_not_fight(masu: Masu) -> None:
    """Somebody writes every 20 ms: masu says so and slows down, and repairs once they stop."""
    masu.write(container(limits={"memory": {"max": "64Mi"}}))
    masu.start()
    masu.running()
    writes = 0
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        set_knob(memory_max(masu), str(1 << 30))
        writes += 1
        time.sleep(0.02)
    repairs = sum(each["type"] == "Repaired" for each in masu.events())
    assert writes > 150
    assert repairs < 20, f"{repairs} repairs against {writes} writes"
    assert any(each["type"] == "Contested" and each["key"] == "memory.max" for each in masu.events())
    assert "RepairFight" in [each["reason"] for each in masu.status()["conditions"]]
    until(lambda: memory_max(masu).read_text().strip() == str(64 << 20), "repaired in the end", 40)
