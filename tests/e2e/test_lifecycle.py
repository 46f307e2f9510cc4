"""Drop a YAML file, get a container; change it, it changes; delete it, it is gone. With both runtimes."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, container, memory_max, set_knob, until


@pytest.mark.on_v2
def test_file_dropped_changed_and_deleted(either: Masu) -> None:
    """The issue's first sentence, with a live daemon."""
    either.write(container("keep"), file="keep.yaml")
    either.start()
    either.write(container(limits={"memory": {"max": "64Mi"}}))
    pid = either.running()
    assert memory_max(either).read_text().strip() == str(64 << 20)

    either.write(container(limits={"memory": {"max": "96Mi"}}))
    until(lambda: memory_max(either).read_text().strip() == str(96 << 20), "the new limit is live")
    assert either.pid() == pid, "a limit changes without a restart"

    (either.source / "web.yaml").unlink()
    until(lambda: not either.traces("web"), f"every trace is gone; left: {either.traces('web')}")
    assert either.pid("keep"), "the neighbour is untouched"


@pytest.mark.on_v2
def test_apply_plan_status_and_down_without_a_daemon(either: Masu) -> None:
    """Everything but `run` works alone."""
    either.write(container(limits={"pids": {"max": 32}}, hostname="box"))
    before = either.run("plan", str(either.source))
    assert before.returncode == 2, before.stdout
    assert "+ web: create" in before.stdout

    done = either.apply()
    assert done.returncode == 0, done.stderr
    assert either.run("plan", str(either.source)).returncode == 0
    status = either.status()
    assert (status["state"], status["converged"], status["drift"]) == ("running", True, [])
    assert status["pid"] == either.pid()

    assert either.run("down", "web").returncode == 0
    assert either.traces("web") == []
    assert either.processes() == []


@pytest.mark.on_v2
def test_drift_is_repaired_and_told_with_old_and_new_value(masu: Masu) -> None:
    masu.write(container(limits={"memory": {"max": "64Mi"}}))
    masu.start()
    masu.running()
    set_knob(memory_max(masu), str(1 << 30))
    until(lambda: memory_max(masu).read_text().strip() == str(64 << 20), "repaired")
    repaired = until(lambda: [each for each in masu.events() if each["type"] == "Repaired"], "told")
    assert (repaired[0]["key"], repaired[0]["old"], repaired[0]["new"]) == (
        "memory.max",
        str(1 << 30),
        str(64 << 20),
    )


@pytest.mark.on_v2
def test_killed_process_is_running_again(either: Masu) -> None:
    either.write(container())
    either.start()
    pid = either.running()
    os.kill(pid, signal.SIGKILL)
    either.restarted(pid)
    status = until(lambda: (found := either.status())["converged"] and found, "converged again")
    assert status["restarts"] == 1
    exited = [each for each in either.events() if each["type"] == "Exited"]
    assert "signal 9" in exited[-1]["message"]


def test_exit_code_and_policy(masu: Masu) -> None:
    """`never` leaves it ended, `on-failure` only after a success; the code is recorded."""
    script = ["/bin/sh", "-c", "exit 3"]
    others = [
        container("fine", process={"args": ["/bin/true"]}, restart={"policy": "on-failure"}),
        container(
            "fails",
            process={"args": script},
            restart={"policy": "on-failure", "backoff": {"initial": "50ms"}},
        ),
    ]
    masu.write(container("never", process={"args": script}, restart={"policy": "never"}), *others)
    masu.start()
    never = until(
        lambda: (found := masu.status("never")).get("exitCode") is not None and found["converged"] and found,
        "never ended and nothing is left to do",
    )
    assert (never["state"], never["exitCode"], never["restarts"], never["converged"]) == (
        "exited",
        3,
        0,
        True,
    )
    fine = until(lambda: (found := masu.status("fine")).get("exitCode") is not None and found, "fine ended")
    assert (fine["state"], fine["exitCode"], fine["restarts"]) == ("exited", 0, 0)
    until(lambda: masu.status("fails")["restarts"] >= 3, "fails is started again and again")
    script = ["/bin/sh", "-c", "exit 4"]
    masu.write(container("never", process={"args": script}, restart={"policy": "never"}), *others)
    edited = until(
        lambda: (found := masu.status("never")).get("exitCode") == 4 and found, "an edit starts it once more"
    )
    assert edited["restarts"] == 0, "which is no restart"


def test_back_off_grows_and_is_shown(masu: Masu) -> None:
    """Restarts: at once, then 1 s, then 2 s: half a second after the second there is no third."""
    masu.write(
        container(process={"args": ["/bin/false"]}, restart={"backoff": {"initial": "1s", "max": "5m"}})
    )
    masu.start()
    until(lambda: masu.record().get("restarts", 0) >= 1, "the first restart is at once", 3)
    until(lambda: masu.record().get("restarts") == 2, "the next after a second", 3)
    time.sleep(0.5)
    status = masu.status()
    assert status["restarts"] == 2
    assert status["state"] == "back-off"
    assert [each["reason"] for each in status["conditions"]] == ["BackOff"]


def test_stop_signal_is_sent_and_grace_ends_in_sigkill(masu: Masu) -> None:
    trap = "trap 'echo bye; exit 0' USR1; echo up; while :; do sleep 0.05; done"
    stop = {"signal": "USR1", "grace": "20s"}
    stubborn = {
        "args": ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"],
        "stop": {"grace": "300ms"},
    }
    masu.write(container(process={"args": ["/bin/sh", "-c", trap], "stop": stop}, state="running"))
    masu.write(container("stubborn", process=stubborn), file="stubborn.yaml")
    masu.start()
    for name in ("web", "stubborn"):
        until(lambda name=name: masu.run("logs", name).stdout == "up\n", f"{name} has set its trap")  # type: ignore[misc]
    masu.write(container(process={"args": ["/bin/sh", "-c", trap], "stop": stop}, state="stopped"))
    masu.write(container("stubborn", process=stubborn, state="stopped"), file="stubborn.yaml")
    until(lambda: masu.record().get("phase") == "exited", "web obeys")
    assert masu.status()["exitCode"] == 0
    assert masu.run("logs", "web").stdout == "up\nbye\n"
    until(lambda: masu.record("stubborn").get("phase") == "exited", "stubborn is killed")
    assert masu.record("stubborn")["exit"]["signal"] == signal.SIGKILL


@pytest.mark.on_v2
def test_states_running_frozen_stopped(masu: Masu) -> None:
    loop = {"args": ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"]}
    masu.write(container(process=loop))
    masu.start()
    pid = masu.running()
    masu.write(container(process=loop, state="frozen"))
    until(lambda: masu.status()["state"] == "frozen", "frozen")
    before = masu.run("logs", "web").stdout
    time.sleep(0.3)
    assert masu.run("logs", "web").stdout == before, "a frozen process does nothing"
    masu.write(container(process=loop))
    until(lambda: len(masu.run("logs", "web").stdout) > len(before), "thawed")
    assert masu.pid() == pid
    masu.write(container(process=loop, state="frozen"))
    until(lambda: masu.status()["state"] == "frozen", "frozen again")
    masu.write(container(process=loop, state="stopped"))
    until(lambda: masu.status()["state"] == "exited", "a frozen container can be stopped")
    masu.write(container(process=loop))
    masu.restarted(pid)


def test_restart_keeps_the_layer_and_recreate_throws_it_away(masu: Masu) -> None:
    touch = {"args": ["/bin/sh", "-c", "echo x >> /data/runs; sleep 100000"], "stop": {"grace": "0s"}}
    masu.write(container(process=touch))
    masu.start()
    pid = masu.running()
    masu.write(container(process={**touch, "env": {"A": "1"}}))
    assert masu.plan()["changes"] == [] or masu.plan()["changes"][0]["action"] == "restart"
    pid = masu.restarted(pid)
    until(lambda: masu.run("exec", "web", "--", "cat", "/data/runs").stdout == "x\nx\n", "the layer was kept")
    masu.write(container(process={**touch, "env": {"A": "1"}}, namespaces={"ipc": "host"}))
    masu.restarted(pid)
    until(lambda: masu.run("exec", "web", "--", "cat", "/data/runs").stdout == "x\n", "the layer is new")


@pytest.mark.on_v2_long
def test_plan_says_live_restart_recreate_create_and_delete(masu: Masu) -> None:
    masu.write(container("live"), container("restart"), container("recreate"), container("gone"))
    assert masu.apply().returncode == 0
    masu.write(
        container("live", limits={"pids": {"max": 99}}),
        container("restart", process={"env": {"A": "1"}}),
        container("recreate", rootfs={"writable": "readOnly"}),
        container("new"),
    )
    changes = {each["container"]: each["action"] for each in masu.plan()["changes"]}
    assert changes == {
        "live": "live",
        "restart": "restart",
        "recreate": "recreate",
        "new": "create",
        "gone": "delete",
    }


def test_exec_joins_namespaces_and_cgroup(either: Masu) -> None:
    either.write(container(hostname="inner", limits={"pids": {"max": 64}}))
    assert either.apply().returncode == 0
    done = either.run("exec", "web", "--", "/bin/sh", "-c", "hostname; readlink /proc/self/ns/pid; exit 7")
    assert done.returncode == 7, done.stderr
    name, space = done.stdout.split()
    assert name == "inner"
    assert space == os.readlink(f"/proc/{either.pid()}/ns/pid")
    look = "cat /sys/fs/cgroup/*/x 2>/dev/null; sleep 2"
    with_cgroup = either.run("exec", "web", "--", "/bin/sh", "-c", f"cat /proc/self/cgroup; {look}")
    assert ":/\n" in with_cgroup.stdout, "the cgroup namespace shows the container's own group as its root"


def test_a_service_tells_systemd_and_rereads_on_sighup(masu: Masu, tmp_path: Path) -> None:
    """sd_notify(3): READY=1 once the source was read, WATCHDOG=1 while alive, STOPPING=1 at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        masu.write(container())
        masu.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
        assert systemd.recv(4096).startswith(b"READY=1")
        assert systemd.recv(4096) == b"WATCHDOG=1"
        pid = masu.running()
        assert masu.daemon
        masu.daemon.send_signal(signal.SIGHUP)
        assert systemd.recv(4096) == b"WATCHDOG=1"
        assert masu.stop() == 0
        said = b""
        while said != b"STOPPING=1":
            said = systemd.recv(4096)
    assert masu.pid() == pid


def test_a_sharer_that_ignores_its_stop_signal_follows_after_its_grace(either: Masu) -> None:
    """A shell as pid 1 ignores TERM: when its partner is started anew, it has its grace and not for ever."""
    deaf = {"args": ["/bin/sh", "-c", "while :; do sleep 1; done"], "stop": {"grace": "700ms"}}
    either.write(container("site"), container("probe", process=deaf, namespaces={"ipc": "container:site"}))
    either.start()
    site, probe = either.running("site"), either.running("probe")
    os.kill(site, signal.SIGKILL)
    either.restarted(site, "site")
    either.restarted(probe, "probe")
    until(lambda: either.status("probe")["converged"], "it has followed")
    assert either.log().count("Stopping") == 1, "said once"
    inode = [os.stat(f"/proc/{either.pid(name)}/ns/ipc").st_ino for name in ("site", "probe")]
    assert inode[0] == inode[1]
