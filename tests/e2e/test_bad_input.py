"""Bad specs and bad hosts: a clear error with the matching exit code, and nothing half done."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.harness import CHECKOUT, Masu, container, until


def test_messages_have_a_position_and_a_suggestion(masu: Masu) -> None:
    masu.write_text(
        "apiVersion: masu/v1\nkind: Container\nmetadata: {name: web}\nspec:\n"
        "  rootfs: {path: /opt/masu/rootfs/busybox}\n  process: {args: [/bin/true]}\n"
        "  limits:\n    memory: {maxx: 1Mi}\n",
        "web.yaml",
    )
    done = masu.run("validate", str(masu.source))
    assert done.returncode == 3
    assert done.stdout.startswith(f"{masu.source}/web.yaml:8:")
    assert 'spec.limits.memory.maxx: unknown field, did you mean "max"?' in done.stdout
    assert masu.run("plan", str(masu.source)).returncode == 3
    applied = masu.apply()
    assert applied.returncode == 3
    assert masu.traces() == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rootfs": {"path": "relative/path"}}, "absolute"),
        ({"rootfs": {"path": "/srv/../etc"}}, ".."),
        ({"sysctls": {"kernel.panic": "1"}}, "would change the whole host"),
        ({"sysctls": {"net.core.somaxconn": "1"}, "namespaces": {"net": "host"}}, "private net"),
        ({"hostname": "x", "namespaces": {"uts": "host"}}, "private uts"),
        ({"limits": {"memory": {"max": "1Mi", "high": "2Mi"}}}, "above max"),
        ({"namespaces": {"net": "container:web"}}, "itself"),
        ({"mounts": [{"tmpfs": "/a"}, {"tmpfs": "/a"}]}, "already a mount"),
        ({"limits": {"memory": {"max": "256Mb"}}}, "is not a quantity"),
        ({"state": "runing"}, 'did you mean "running"'),
    ],
)
def test_spec_errors(masu: Masu, spec: dict[str, object], said: str) -> None:
    masu.write(container(**spec))
    done = masu.run("validate", str(masu.source))
    assert done.returncode == 3
    assert said in done.stdout, done.stdout


def test_one_name_in_two_files_names_both(masu: Masu) -> None:
    masu.write(container(), file="a.yaml")
    masu.write(container(), file="b.yaml")
    done = masu.run("validate", str(masu.source))
    assert done.returncode == 3
    assert "a.yaml" in done.stdout
    assert "b.yaml" in done.stdout
    assert masu.apply().returncode == 3
    assert masu.pid(), "the first one runs"


def test_absent_partner_is_a_spec_error(masu: Masu) -> None:
    masu.write(container(namespaces={"net": "container:nobody"}))
    done = masu.run("validate", str(masu.source))
    assert done.returncode == 3
    assert '"nobody", which no valid file defines' in done.stdout


def test_rootfs_missing_and_args_not_found(masu: Masu) -> None:
    """The runtime's own message, once, as a condition; the neighbour runs; nothing is left running."""
    masu.write(
        container("norootfs", rootfs={"path": "/nonexistent/rootfs"}),
        container("noargs", process={"args": ["/bin/nonexistent"]}),
        container("fine"),
    )
    masu.start()
    masu.running("fine")
    for name, said in (("norootfs", "/nonexistent/rootfs"), ("noargs", "nonexistent")):
        found = until(lambda n=name: masu.status(n)["conditions"], f"{name} says why")  # type: ignore[misc]
        assert found[-1]["reason"] == "LaunchFailed"
        assert said in found[-1]["message"]
        assert not masu.status(name)["converged"]
    time.sleep(1.5)
    launches = [
        each for each in masu.events() if each["container"] == "noargs" and each["type"] == "LaunchFailed"
    ]
    assert 1 <= len(launches) <= 5, "with back-off, not in a loop"
    assert len(masu.processes()) == 1


def test_absent_runtime_is_exit_5(masu: Masu, tmp_path: Path) -> None:
    """With neither crun nor runc, limits still converge and the container says what is lacking."""
    masu.write(container(limits={"pids": {"max": 5}}))
    script = (
        "import sys; from controller.host import facts; facts.PREFIX_BIN = '/nonexistent'; "
        "from controller.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            "--instance",
            masu.instance,
            "apply",
            "--wait",
            "3s",
            str(masu.source),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "install crun or runc" in done.stderr


def test_absent_subsystem_is_a_condition_and_the_rest_converges(masu: Masu) -> None:
    """memory.low does not exist on cgroup v1; on v2 a cpu that is not there serves the same purpose."""
    masu.write(container(limits={"memory": {"max": "64Mi"}, "cpu": {"cpus": "4000"}, "pids": {"max": 9}}))
    done = masu.apply()
    assert done.returncode == 5, done.stderr
    status = masu.status()
    assert status["state"] == "running"
    assert [each["type"] for each in status["conditions"]] == ["HostLacks"]
    assert "no cpu 4000" in status["conditions"][0]["message"]
    assert not status["converged"]


def test_a_second_reconciler_says_who_holds_the_instance(masu: Masu) -> None:
    masu.write(container())
    masu.start()
    masu.running()
    assert masu.daemon
    second = masu.apply()
    assert second.returncode == 1
    assert f"pid {masu.daemon.pid}" in second.stderr


def test_not_root_is_told(masu: Masu) -> None:
    os.chmod(masu.source.parent, 0o755)
    masu.write(container())
    script = (
        "import os, sys, controller.app.once, controller.log, controller.sources.directory; "
        "from controller.cli import main; "
        "os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--instance", masu.instance, "apply", "/etc"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr


def test_read_only_run_is_told_and_changes_nothing(masu: Masu) -> None:
    """/run read-only, in a mount namespace of the test's own."""
    masu.write(container())
    argv = [sys.executable, "-m", "controller", "--instance", masu.instance, "apply", str(masu.source)]
    script = 'mount --make-rprivate / && mount --bind /run /run && mount -o remount,bind,ro /run && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script, "sh", *argv],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "/run/masu" in done.stderr
    assert "Read-only" in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_under_the_state_is_told(masu: Masu) -> None:
    """/var/lib/masu on a tmpfs that is full: an error that names the path; the daemon does not die."""
    masu.write(container())
    argv = [
        sys.executable,
        "-m",
        "controller",
        "--instance",
        masu.instance,
        "apply",
        "--wait",
        "2s",
        str(masu.source),
    ]
    script = (
        "mount --make-rprivate / && mkdir -p /var/lib/masu && mount -t tmpfs -o size=8k tmpfs /var/lib/masu && "
        'head -c 100000 /dev/zero > /var/lib/masu/fill; exec "$@"'
    )
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script, "sh", *argv],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "/var/lib/masu" in done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_hostile_files_are_refused_and_the_rest_goes_on(masu: Masu) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
    )
    masu.write_text(bomb, "bomb.yaml")
    masu.write_text("x: " + "[" * 5000, "deep.yaml")
    (masu.source / "binary.yaml").write_bytes(os.urandom(4096))
    (masu.source / "huge.yaml").write_bytes(b"a" * (3 << 20))
    (masu.source / "passwd.yaml").symlink_to("/etc/passwd")
    os.mkfifo(masu.source / "fifo.yaml")
    masu.write(container(), file="good.yaml")
    started = time.monotonic()
    done = masu.apply()
    assert time.monotonic() - started < 10
    assert done.returncode == 3
    for name in ("bomb", "deep", "binary", "huge", "passwd", "fifo"):
        assert f"{name}.yaml:" in done.stderr, name
    assert "root:" not in done.stderr, "nothing of a foreign file is shown"
    assert masu.pid()


def test_a_file_being_written_is_not_taken_half(masu: Masu) -> None:
    masu.write(container("other"), file="other.yaml")
    masu.start()
    masu.running("other")
    whole = (masu.source / "other.yaml").read_text().replace("other", "late")
    with (masu.source / "late.yaml").open("w") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        time.sleep(0.5)
        assert "late.yaml" not in masu.run("status").stdout
        file.write(whole[len(whole) // 2 :])
    masu.running("late")


def test_a_held_lock_of_another_program_is_not_ours(masu: Masu) -> None:
    """Two instances never see each other."""
    masu.write(container())
    assert masu.apply().returncode == 0
    other = masu.run("--instance", masu.instance + "x", "status", "-o", "json")
    assert '"containers": []' in other.stdout
    with Path(f"/run/masu/{masu.instance}/controller.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert masu.apply().returncode == 1


def test_resync_after_sighup_and_a_changed_symlink(masu: Masu, tmp_path: Path) -> None:
    """The Kubernetes way of mounting a ConfigMap: ..data is swapped, the files are symlinks through it."""
    versions = []
    for index, limit in enumerate(("10", "11")):
        version = masu.source / f"..v{index}"
        version.mkdir()
        text = masu.write(container(limits={"pids": {"max": int(limit)}}), file=f"x{index}.tmp").read_text()
        (masu.source / f"x{index}.tmp").unlink()
        (version / "web.yaml").write_text(text)
        versions.append(version.name)
    (masu.source / "..data").symlink_to(versions[0])
    (masu.source / "web.yaml").symlink_to("..data/web.yaml")
    masu.start()
    pid = masu.running()
    (masu.source / "..tmp").symlink_to(versions[1])
    (masu.source / "..tmp").rename(masu.source / "..data")
    pids = next(Path("/sys/fs/cgroup").rglob(f"masu/{masu.instance}/web/pids.max"))
    until(lambda: pids.read_text() == "11\n", "the swap is followed")
    assert masu.pid() == pid
    assert tmp_path.exists()


def test_an_edit_that_cannot_start_stops_nobody(masu: Masu, tmp_path: Path) -> None:
    """A mount's source that is not there is seen before what runs is stopped, and waited for."""
    masu.write(container())
    masu.start()
    pid = masu.running()
    source = tmp_path / "later"
    masu.write(container(mounts=[{"source": str(source), "target": "/mnt"}]))
    said = until(lambda: [c for c in masu.status()["conditions"] if c["reason"] == "LaunchWouldFail"], "told")
    assert str(source) in said[0]["message"]
    assert masu.pid() == pid
    source.mkdir(mode=0o755)
    masu.restarted(pid)
    until(lambda: masu.status()["converged"], "done")


def test_a_partner_that_no_file_defines_stops_nobody(masu: Masu) -> None:
    """A typo in a partner's name is a bad file like any other, and so is one whose partner's file was deleted."""
    masu.write(container("site"), file="site.yaml")
    masu.write(container("probe", namespaces={"net": "container:site"}), file="probe.yaml")
    masu.start()
    site, probe = masu.running("site"), masu.running("probe")
    masu.write(container("probe", namespaces={"net": "container:sit"}), file="probe.yaml")
    line = (masu.source / "probe.yaml").read_text().splitlines().index("  namespaces:") + 1
    until(lambda: f"probe.yaml:{line}:3: " in masu.run("status").stdout, "rejected with its line")
    assert (masu.pid("site"), masu.pid("probe")) == (site, probe)
    masu.write(container("probe", namespaces={"net": "container:site"}), file="probe.yaml")
    until(lambda: "rejected" not in masu.run("status").stdout, "mended")
    (masu.source / "site.yaml").unlink()
    until(lambda: "no valid file defines" in masu.run("status").stdout, "told")
    assert masu.pid("probe") == probe


def test_words_that_are_not_understood_are_no_pending_changes(masu: Masu) -> None:
    for words in ((), ("plna",), ("plan",), ("plan", "--foo", "x")):
        assert masu.run(*words).returncode == 1


def test_down_says_what_it_did(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    done = masu.run("down", "web", "nope")
    assert done.returncode == 1
    assert "removed web" in done.stdout
    assert "there is no container nope" in done.stderr


def test_a_guarded_change_is_told_once(masu: Masu) -> None:
    masu.write(container(limits={"memory": {"max": "64Mi"}}))
    masu.start("--resync", "200ms")
    masu.running()
    masu.write(container(limits={"memory": {"max": "40Ki"}}))
    until(lambda: "GuardRefused" in masu.log(), "told in the log")
    time.sleep(1)
    assert [each["type"] for each in masu.events()].count("GuardRefused") == 1
    assert "force: true" in masu.log()


def test_a_source_that_is_not_there_fails(masu: Masu) -> None:
    done = masu.run("apply", str(masu.source / "nowhere"))
    assert done.returncode == 1
    assert "No such file or directory; nothing was changed" in done.stderr
    masu.write(container())
    assert masu.apply().returncode == 0
    os.kill(masu.pid(), signal.SIGKILL)
    until(lambda: not masu.pid(), "it has ended")
    done = masu.run("apply", str(masu.source / "nowhere"))
    assert done.returncode == 1
    assert "No such file or directory; what was desired before stays" in done.stderr
    assert masu.pid(), "it was started again"


def test_a_daemon_waits_for_who_does_one_thing_only(masu: Masu) -> None:
    """Else a crash during a long restore by hand would end in its supervisor's giving up."""
    masu.write(container())
    assert masu.apply().returncode == 0
    lock = os.open(f"/run/masu/{masu.instance}/controller.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        daemon = masu.spawn("run", str(masu.source))
        time.sleep(1)
        assert daemon.poll() is None
    finally:
        os.close(lock)
    try:
        until(lambda: Path(f"/run/masu/{masu.instance}/control.socket").exists(), "it goes on")
        assert masu.run("run", str(masu.source)).returncode == 1, "a second one is not waited for"
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_another_source_removes_nobody_unasked(masu: Masu, tmp_path: Path) -> None:
    masu.write(container("one"), container("two"))
    assert masu.apply().returncode == 0
    extra = tmp_path / "extra.yaml"
    extra.write_text(yaml.safe_dump(container("three")))
    for verb in ("plan", "apply"):
        done = masu.run(verb, str(extra))
        assert done.returncode == 4
        assert "does not define one, two, which would be removed" in done.stdout + done.stderr
    assert masu.pid("one")
    assert masu.run("apply", "--allow-removals", str(extra)).returncode == 0
    assert masu.traces("one") == []
    masu.write(container("three"), container("four"))
    assert masu.apply().returncode == 0, "nothing is removed"


def test_a_file_that_is_spoilt_and_moved_ends_nobody(masu: Masu) -> None:
    masu.write(container("one"), file="one.yaml")
    masu.write(container("two"), file="two.yaml")
    masu.start()
    pid = masu.running("one")
    file, moved = masu.source / "one.yaml", masu.source / "shop.yaml"
    good = file.read_text()
    masu.write_text(good.replace("kind: Container", "kind: Kontainer"), "one.yaml")
    until(lambda: "Kontainer" in masu.run("status").stdout, "rejected")
    file.rename(moved)
    until(lambda: "may be in it" in masu.run("status").stdout, "told")
    time.sleep(1.5)  # longer than a file is given to come back
    assert masu.pid("one") == pid
    masu.write_text(good, "shop.yaml")
    until(lambda: "rejected" not in masu.run("status").stdout, "mended")
    assert masu.pid("one") == pid
    moved.unlink()
    until(lambda: masu.traces("one") == [], "removed")
