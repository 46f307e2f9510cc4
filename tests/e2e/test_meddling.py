"""What others do behind masu's back, and what it does about it: nothing is lost, nothing is left, nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, cgroup_mounts, container, knob, memory_max, set_knob, until


def _reason(masu: Masu, name: str) -> str:
    return next((each["reason"] for each in masu.status(name).get("conditions", ())), "")


LIMIT = {"memory": {"max": "64Mi"}}


def move_out(pid: int) -> None:
    """Into the root group of every hierarchy."""
    for mount in cgroup_mounts():
        (Path(mount) / "cgroup.procs").write_text(str(pid))


@pytest.mark.on_v2
@pytest.mark.parametrize("grace", ["0s", "300ms"])
def test_an_init_that_was_moved_out_of_its_groups_is_removed_all_the_same(masu: Masu, grace: str) -> None:
    deaf = {"args": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], "stop": {"grace": grace}}
    masu.write(container(process=deaf))
    assert masu.apply().returncode == 0
    pid = masu.pid()
    move_out(pid)
    assert masu.run("down", "web").returncode == 0
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.on_v2
def test_what_somebody_has_frozen_is_thawed_and_can_be_removed(masu: Masu) -> None:
    """On a hybrid host with v1's freezer, which masu does not use, and whose prisoners cannot be killed."""
    masu.write(container())
    masu.start("--resync", "1s")
    pid = masu.running()
    freezer = knob(masu, "web", "freezer/freezer.state", "cgroup.freeze")
    frozen, thawed = ("FROZEN", "THAWED") if freezer.name == "freezer.state" else ("1", "0")
    set_knob(freezer, frozen)
    until(lambda: freezer.read_text().strip() == thawed, "thawed")
    masu.stop()
    set_knob(freezer, frozen)
    assert masu.status()["state"] == "frozen"
    assert "frozen" in masu.run("exec", "web", "--", "true").stderr
    assert masu.run("down", "web").returncode == 0
    assert not Path(f"/proc/{pid}").exists()


def test_an_interrupted_removal_of_a_layer_goes_on(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    layers = Path(f"/var/lib/masu/{masu.instance}/layers")
    masu.run("down", "web")
    (layers / ".web.removed/upper").mkdir(parents=True)
    assert masu.traces("web")
    assert masu.apply().returncode == 0
    assert not (layers / ".web.removed").exists()


def test_groups_that_somebody_made_do_not_freeze_the_source(masu: Masu) -> None:
    masu.write(container())
    masu.start()
    masu.running()
    for number in range(8):
        knob(masu, f"bogus-{number}", "pids/pids.max", "pids.max").parent.mkdir()
    masu.write(container("more"), file="more.yaml")
    masu.running("more")


@pytest.mark.on_v2_long
def test_a_fight_over_one_key_holds_no_other_repair_back(masu: Masu) -> None:
    masu.write(container(limits={**LIMIT, "pids": {"max": 50}}))
    masu.start()
    pid = masu.running()
    pids = knob(masu, "web", "pids/pids.max", "pids.max")
    memory = memory_max(masu)
    ends = time.monotonic() + 7
    while time.monotonic() < ends:
        set_knob(memory, str(1 << 30))
        time.sleep(0.02)
        if time.monotonic() > ends - 3 and pids.read_text().strip() == "50" and pid == masu.pid():
            set_knob(pids, "51")
            began = time.monotonic()
            until(lambda: pids.read_text().strip() == "50", "the other key is repaired", 2)
            os.kill(pid, signal.SIGKILL)
            masu.restarted(pid)
            assert time.monotonic() - began < 2
            break
    else:
        pytest.fail("the fight came to nothing")
    assert any(each["type"] == "Contested" for each in masu.events())
    until(lambda: memory.read_text().strip() == str(64 << 20), "repaired in the end", 40)


def test_a_desired_set_that_could_not_be_saved_is_saved_later(masu: Masu) -> None:
    """Its directory is made immutable in the only way that root obeys: another file system, read-only."""
    masu.write(container())
    masu.write(container("other"), file="other.yaml")
    masu.start("--resync", "1s")
    masu.running()
    masu.running("other")
    state = f"/var/lib/masu/{masu.instance}"
    desired = Path(state) / "desired.json"
    until(lambda: "other" in desired.read_text(), "saved")
    logs = [Path(state) / f"logs/{name}/current.log" for name in ("web", "other")]
    until(lambda: all(each.exists() for each in logs), "what is opened through the mount would hold it")
    subprocess.run(["mount", "--bind", state, state], check=True)
    remount = ["mount", "-o", "remount,bind,ro", state]
    try:
        until(
            lambda: not subprocess.run(remount, check=False).returncode, "nothing is just being written there"
        )
        masu.write(container(limits=LIMIT))
        until(lambda: memory_max(masu).read_text().strip() == str(64 << 20), "the edit is live all the same")
        assert "64Mi" not in desired.read_text()
        until(
            lambda: any("Read-only file system" in each["message"] for each in masu.events()),
            "somebody is told",
        )
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)
    until(lambda: "64Mi" in desired.read_text(), "saved in the end")


def test_a_runtime_that_hangs_holds_nobody_else_up(masu: Masu) -> None:
    """The runtime opens /etc/passwd of the container, which is a pipe that nobody writes to."""
    trap = "rm -rf /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group; exit 0"
    masu.write(container(limits=LIMIT))
    masu.write(
        *(container(f"trap-{number}", process={"args": ["/bin/sh", "-c", trap]}) for number in range(6)),
        file="traps.yaml",
    )
    masu.start()
    masu.running()
    for number in range(6):
        until(lambda number=number: _reason(masu, f"trap-{number}") == "Launching", "a launch hangs")
    for _ in range(5):
        set_knob(memory_max(masu), str(1 << 30))
        began = time.monotonic()
        until(lambda: memory_max(masu).read_text().strip() == str(64 << 20), "repaired")
        assert time.monotonic() - began < 2
        time.sleep(0.3)


def test_whoever_must_not_wait_takes_down_at_once(masu: Masu) -> None:
    deaf = {"args": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], "stop": {"grace": "1h"}}
    masu.write(container(process=deaf))
    assert masu.apply().returncode == 0
    assert masu.run("down", "web", "--wait", "200ms").returncode == 1
    assert masu.run("down", "web", "--now").returncode == 0


def test_a_circle_of_three_is_an_error(masu: Masu) -> None:
    for name, partner in (("x", "y"), ("y", "z"), ("z", "x")):
        masu.write(container(name, namespaces={"net": f"container:{partner}"}), file=f"{name}.yaml")
    done = masu.run("validate", str(masu.source))
    assert done.returncode == 3
    assert "in turn" in done.stdout


def test_a_limit_that_is_too_small_to_be_born_in_is_named(masu: Masu) -> None:
    masu.write(container(limits={"memory": {"max": 1}}))
    done = masu.apply("--wait", "3s")
    assert done.returncode == 1
    assert "memory limit too small" in done.stderr


def _in_mounts_of(pid: int, *command: str) -> None:
    nsenter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--", "/bin/busybox", *command]
    done = subprocess.run(nsenter, check=True, timeout=10, capture_output=True, text=True)
    assert not done.stderr, done.stderr


def _mounts_at(pid: int, target: str) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == target]


def test_mounts_that_were_changed_inside_are_put_right_at_once(either: Masu, tmp_path: Path) -> None:
    """Taken away, covered twice, made writable: found by the mount table's own events, and never stacked."""
    tmp_path.chmod(0o755)
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "inner").mkdir()
    mounts = [
        {"source": str(shared), "target": "/mnt//", "readOnly": True},
        {"tmpfs": "/mnt/inner"},
        {"tmpfs": "/var/run"},
    ]
    either.write(container(mounts=mounts))
    either.start("--resync", "60s")
    pid = either.running()

    def right() -> bool:
        lines = [_mounts_at(pid, target) for target in ("/mnt", "/mnt/inner")]
        return (
            all(len(each) == 1 for each in lines) and " ro," in lines[0][0] and either.status()["converged"]
        )

    assert right()
    for meddle in (
        [("umount", "-l", "/mnt")],
        [("mount", "-t", "tmpfs", "x", "/mnt"), ("mount", "-t", "tmpfs", "y", "/mnt")],
        [("mount", "-o", "remount,rw,bind", "/mnt")],
        [("umount", "/mnt/inner")],
    ):
        for command in meddle:
            _in_mounts_of(pid, *command)
        until(right, f"put right after {meddle}")
    assert either.pid() == pid


def test_a_mount_target_behind_a_link_is_one_mount(masu: Masu, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", "/opt/masu/rootfs/busybox", str(rootfs)], check=True, timeout=60)
    (rootfs / "link").symlink_to("/mnt")
    masu.write(container(rootfs={"path": str(rootfs)}, mounts=[{"tmpfs": "/link"}]))
    assert masu.apply().returncode == 0
    for _ in range(3):
        assert masu.apply().returncode == 0
    assert len(_mounts_at(masu.pid(), "/mnt")) == 1
    assert masu.status()["converged"]


def test_a_file_that_was_replaced_on_the_host_is_replaced_inside(masu: Masu, tmp_path: Path) -> None:
    """As editors do it: a bind mount keeps showing the old file for ever."""
    config = tmp_path / "config"
    config.write_text("old\n")
    masu.write(container(mounts=[{"source": str(config), "target": "/etc/app.conf", "readOnly": True}]))
    masu.start("--resync", "1s")
    pid = masu.running()
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "new").rename(config)
    until(lambda: masu.run("exec", "web", "--", "cat", "/etc/app.conf").stdout == "new\n", "the new file")
    assert masu.pid() == pid


def test_names_that_are_paths_are_refused(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    for name in ("", "..", "../..", "a/b"):
        for words in (("down", name), ("logs", name), ("exec", name, "--", "true")):
            done = masu.run(*words)
            assert done.returncode == 3, (words, done)
            assert "is not a name" in done.stderr
    assert masu.pid()
    assert masu.status()["converged"]


def test_a_layer_that_is_very_deep_is_removed(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    script = "cd /root; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done"
    assert masu.run("exec", "web", "--", "/bin/sh", "-c", script).returncode == 0
    assert masu.run("down", "web").returncode == 0
    assert not masu.traces("web")


def test_a_rootfs_whose_path_has_separators_of_overlayfs(masu: Masu, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    rootfs = tmp_path / "a,b:c"
    subprocess.run(["cp", "-a", "/opt/masu/rootfs/busybox", str(rootfs)], check=True, timeout=60)
    masu.write(container(rootfs={"path": str(rootfs)}))
    done = masu.apply()
    assert done.returncode == 0, done.stderr


def _groups_of(masu: Masu) -> list[Path]:
    found = [Path(mount) / f"masu/{masu.instance}/web" for mount in cgroup_mounts()]
    return [each for each in found if each.exists()]


def test_groups_below_the_containers_own_are_ended_too(masu: Masu) -> None:
    """Whoever moves a process down there does not get it out of reach."""
    masu.write(container())
    assert masu.apply().returncode == 0
    child = subprocess.Popen(["sleep", "1000"])
    try:
        for group in _groups_of(masu):
            below = group / "below"
            below.mkdir()
            if (below / "cpuset.cpus").exists() and not (below / "cgroup.controllers").exists():
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (below / file).write_text((below.parent / file).read_text())
            (below / "cgroup.procs").write_text(str(child.pid))
        assert masu.run("down", "web").returncode == 0
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait(10)
    assert not masu.traces("web")


def test_a_strict_umask_spoils_nothing(masu: Masu) -> None:
    masu.write(container(namespaces={"user": "auto"}))
    before = os.umask(0o077)
    try:
        done = masu.apply()
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    umask = masu.run("exec", "web", "--", "/bin/sh", "-c", "umask").stdout.strip()
    assert umask == "0022"


def test_a_group_that_is_removed_is_made_again_at_once(masu: Masu) -> None:
    """Nobody but the directory above tells of its end."""
    masu.write(container(limits=LIMIT))
    masu.start("--resync", "60s")
    pid = masu.running()
    limit = memory_max(masu)
    subprocess.run(
        ["sh", "-c", f"echo {pid} >{limit.parents[3]}/cgroup.procs && rmdir {limit.parent}"],
        check=True,
        timeout=10,
    )
    until(lambda: limit.exists() and limit.read_text().strip() == str(64 << 20), "made again", 3)
    until(lambda: masu.status()["converged"], "and its process is back in it")
    assert masu.pid() == pid
