"""What the policy of the host does not allow is refused with the rule's name, and stops nobody who runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import ROOTFS, WAIT_S, Masu, container, network, until
from tests.repositories import Remote

pytestmark = pytest.mark.root

OPEN: dict[str, Any] = {
    "rootfs": [{"path": ROOTFS}],
    "mounts": [{"path": "/usr/share"}],
    "namespaces": ["user"],
    "limits": {"pids": 100},
}
LIMITS = {"pids": {"max": 50}}


class Policy:
    """A file of its own: that of the host, if there is one, is not meant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()

    def write(self, **rules: Any) -> None:
        document = {"apiVersion": "masu/v1", "kind": "HostPolicy", "spec": {**OPEN, **rules}}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(yaml.safe_dump(document))
        temporary.rename(self.path)

    @property
    def option(self) -> tuple[str, str]:
        return "--policy", str(self.path)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    directory = tmp_path / "etc"
    directory.mkdir()
    return Policy(directory / "policy.yaml")


def web(**spec: Any) -> dict[str, Any]:
    return container(**{"limits": LIMITS, **spec})


LAN = network("lan", type="macvlan", parent="nic0")
FRONT = network("front", subnets=["10.213.0.0/24"])
REFUSED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "rootfs": ("spec.rootfs.path", [web(rootfs={"path": "/"})]),
    "mounts": (
        "spec.mounts[0].source",
        [web(mounts=[{"source": "/etc", "target": "/etc", "readOnly": True}])],
    ),
    "devices": ("spec.devices[0]", [web(devices=[{"path": "/dev/kmsg"}])]),
    "capabilities": (
        "spec.process.capabilities.add[0]",
        [web(process={"args": ["/bin/sleep", "1000"], "capabilities": {"add": ["SYS_ADMIN"]}})],
    ),
    "privileged": (
        "spec.process.seccomp",
        [web(process={"args": ["/bin/sleep", "1000"], "seccomp": "unconfined"})],
    ),
    "namespaces": ("spec.namespaces.pid", [web(namespaces={"pid": "host"})]),
    "networks": ("spec.networks[0]", [LAN, web(networks=[{"network": "lan"}])]),
    "ports": ("spec.ports[0]", [FRONT, web(networks=[{"network": "front"}], ports=["8080:80"])]),
    "limits": ("spec.limits.pids.max", [web(limits={"pids": {"max": 101}})]),
}


def test_each_rule_refuses_by_its_name(masu: Masu, policy: Policy) -> None:
    for rule, (path, documents) in REFUSED.items():
        masu.write(*documents, file=f"{rule}.yaml")
        done = masu.run("validate", *policy.option, str(masu.source / f"{rule}.yaml"))
        assert done.returncode == 3, rule
        said = [line for line in done.stdout.splitlines() if f" {path}: " in line]
        assert len(said) == 1, done.stdout
        assert f'"web" is not allowed by rule {rule} of {policy.path}: ' in said[0]
        line = int(said[0].removeprefix(f"{masu.source}/{rule}.yaml:").split(":")[0])
        assert line > 4, "where the key stands, not where the document begins"
        (masu.source / f"{rule}.yaml").unlink()


def test_plan_and_apply_refuse_and_make_nothing(masu: Masu, policy: Policy) -> None:
    masu.write(web(namespaces={"net": "host"}))
    planned = masu.run("plan", *policy.option, str(masu.source))
    assert planned.returncode == 3
    assert "rule networks" in planned.stdout
    applied = masu.apply(*policy.option)
    assert applied.returncode == 3
    assert "rule networks" in applied.stderr
    assert masu.traces() == []
    assert masu.apply().returncode == 0, "without a policy everything works as ever"


def test_an_edit_that_asks_too_much_keeps_the_last_good_version(masu: Masu, policy: Policy) -> None:
    masu.write(web())
    masu.start(*policy.option)
    pid = masu.running()
    masu.write(web(mounts=[{"source": "/usr/share", "target": "/mnt"}]))
    until(
        lambda: f"rule mounts of {policy.path}: /usr/share may only be read" in masu.run("status").stdout,
        "told",
    )
    assert masu.pid() == pid
    masu.write(web(mounts=[{"source": "/usr/share", "target": "/mnt", "readOnly": True}]))
    masu.restarted(pid)
    until(lambda: "rejected" not in masu.run("status").stdout, "mended")


def test_a_tightened_policy_stops_nobody_and_lets_nobody_be_born(masu: Masu, policy: Policy) -> None:
    policy.write(capabilities=["NET_RAW"])
    masu.write(web(process={"args": ["/bin/sleep", "100000"], "capabilities": {"add": ["NET_RAW"]}}))
    masu.start(*policy.option)
    pid = masu.running()
    policy.write()

    def said() -> list[str]:
        return [each["message"] for each in masu.status()["conditions"] if each["reason"] == "NotAllowed"]

    (message,) = until(said, "told in the status")
    assert "rule capabilities" in message
    assert masu.pid() == pid
    assert masu.status()["converged"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: masu.pid() == 0 and said(), "it has ended, and waits")
    assert masu.stop() == 0
    planned = masu.run("plan", *policy.option, str(masu.source))
    assert f"NotAllowed: {message}" in planned.stdout
    assert masu.run("restore", *policy.option, "web").returncode == 4
    assert masu.apply(*policy.option).returncode == 3
    assert masu.pid() == 0
    policy.write(capabilities=["NET_RAW"])
    assert masu.apply(*policy.option).returncode == 0
    masu.running()


def test_who_may_not_be_born_is_not_ended_for_a_checkpoint(masu: Masu, policy: Policy) -> None:
    """With `mode: stop` it would be born again from it."""
    policy.write(capabilities=["NET_RAW"])
    process = {"args": ["/bin/sleep", "100000"], "capabilities": {"add": ["NET_RAW"]}}
    masu.write(web(process=process, checkpoint={"mode": "stop"}))
    masu.start(*policy.option)
    pid = masu.running()
    policy.write()
    until(lambda: "NotAllowed" in masu.run("status").stdout, "told in the status")
    for verb in (("checkpoint",), ("restore",)):
        done = masu.run(*verb, "web")
        assert done.returncode == 4, done.stderr
        assert "rule capabilities" in done.stderr or verb == ("restore",)
    assert masu.pid() == pid


def test_a_link_that_leads_out_is_not_followed(masu: Masu, policy: Policy, tmp_path: Path) -> None:
    """Whoever exchanges what is below a path that is allowed: neither a repair nor a birth goes there."""
    (tmp_path / "srv" / "www").mkdir(parents=True)
    policy.write(mounts=[{"path": str(tmp_path / "srv")}])
    masu.write(web(mounts=[{"source": str(tmp_path / "srv" / "www"), "target": "/mnt", "readOnly": True}]))
    masu.start("--resync", "200ms", *policy.option)
    pid = masu.running()
    until(lambda: "Started" in masu.log(), "its first look is over")
    time.sleep(0.3)
    (tmp_path / "srv" / "www").rename(tmp_path / "srv" / "old")
    (tmp_path / "srv" / "www").symlink_to("/etc")
    until(lambda: "/etc is not below a path" in masu.run("status", "web").stdout, "told")
    assert not Path(f"/proc/{pid}/root/mnt/passwd").exists()
    os.kill(pid, signal.SIGKILL)
    until(lambda: masu.pid() == 0 and masu.status()["state"] != "running", "it has ended, and waits")
    (tmp_path / "srv" / "www").unlink()
    (tmp_path / "srv" / "old").rename(tmp_path / "srv" / "www")
    masu.restarted(pid)


def test_what_others_than_root_may_exchange_is_not_mounted(
    masu: Masu, policy: Policy, tmp_path: Path
) -> None:
    www = tmp_path / "srv" / "theirs" / "www"
    www.mkdir(parents=True)
    os.chown(www.parent, 65534, 65534)
    policy.write(mounts=[{"path": str(tmp_path / "srv")}])
    masu.write(web(mounts=[{"source": str(www), "target": "/mnt", "readOnly": True}]))
    done = masu.run("plan", *policy.option, str(masu.source))
    assert done.returncode == 3
    assert f"{www.parent} belongs to user 65534, not to root: whoever it is could exchange" in done.stdout
    policy.write(mounts=[{"path": str(www)}])
    assert masu.run("plan", *policy.option, str(masu.source)).returncode == 2


def test_a_policy_that_is_spoilt_stays_as_it_was_and_is_followed_again(masu: Masu, policy: Policy) -> None:
    masu.write(web(limits={"pids": {"max": 101}}))
    masu.start(*policy.option)
    until(lambda: "rule limits" in masu.log(), "refused")
    policy.path.chmod(0o666)
    until(lambda: "may be written by others than root" in masu.log(), "told")
    policy.write(limits={"pids": 200})
    masu.running()
    policy.path.unlink()
    until(lambda: masu.log().count("PolicyRejected") == 2, "silence permits nothing")
    masu.write(web(limits={"pids": {"max": 201}}))
    until(lambda: "201 is above 200" in masu.log(), "the last good policy is in force")


def test_a_policy_of_somebody_else_is_no_policy(masu: Masu, policy: Policy) -> None:
    masu.write(web())
    policy.path.chmod(0o666)
    for verb in ("run", "apply", "plan"):
        done = masu.run(verb, *policy.option, str(masu.source))
        assert done.returncode == 1
        assert f"{policy.path} may be written by others than root (mode 0666)" in done.stderr
    policy.path.chmod(0o644)
    policy.path.write_text("kind: HostPolicy\n")
    done = masu.apply(*policy.option)
    assert done.returncode == 3
    assert f'{policy.path}:1:1: "spec" is missing' in done.stderr
    assert masu.apply("--policy", str(policy.path.parent / "none")).returncode == 1
    assert masu.traces() == []


def test_a_repository_elsewhere_needs_a_policy(masu: Masu, policy: Policy) -> None:
    source = "git+https://127.0.0.1:9/specs.git"
    done = masu.run("apply", source)
    assert done.returncode == 4
    assert f"whoever may push to {source} is as good as root" in done.stderr
    assert masu.run("run", source).returncode == 4
    for option in (policy.option, ("--allow-unsafe-source",)):
        done = masu.run("apply", "--wait", "1s", *option, source)
        assert "as good as root" not in done.stderr
        assert "127.0.0.1" in done.stderr, "it was asked"


def test_a_repository_on_this_host_has_to_be_roots_alone(masu: Masu) -> None:
    masu.write(web())
    subprocess.run(["git", "init", "-q", "-b", "main", masu.source], check=True)
    masu.source.chmod(0o775)
    done = masu.run("apply", f"git+file://{masu.source}#main")
    assert done.returncode == 4
    assert "may be written by others than root (mode 0775)" in done.stderr


def test_all_of_a_repository_that_counts_has_to_be_roots_alone(
    masu: Masu, policy: Policy, tmp_path: Path
) -> None:
    """Nothing is begun with one that others write; one that has come to that is silent."""
    remote = Remote(tmp_path / "remote")
    remote.push("one", web=yaml.safe_dump(web()))
    (remote.path / "refs").chmod(0o777)
    source = masu.source = remote.url("#main")  # type: ignore[assignment]
    said = f"{remote.path}/refs may be written by others than root (mode 0777)"
    for verb in ("apply", "run", "plan"):
        done = masu.run(verb, source)
        assert done.returncode == 4, verb
        assert said in done.stdout + done.stderr
    assert masu.traces() == []
    assert masu.run("plan", *policy.option, source).returncode == 2, "whoever may push to it is bound"
    (remote.path / "refs").chmod(0o755)
    masu.start("--fetch-every", "1s")
    pid = masu.running()
    (remote.path / "refs").chmod(0o777)
    remote.push("two", web=yaml.safe_dump(web(limits={"pids": {"max": 51}})))
    until(lambda: said in masu.run("status").stdout, "what it says does not count any more")
    assert masu.pid() == pid
    (remote.path / "refs").chmod(0o755)
    until(lambda: '"two"' in masu.run("status").stdout, "followed again")


def test_a_source_of_somebody_else_is_refused(masu: Masu) -> None:
    masu.write(web())
    masu.source.chmod(0o777)
    done = masu.apply()
    assert done.returncode == 4
    assert "may be written by others than root (mode 0777)" in done.stderr
    assert "--allow-unsafe-source" in done.stderr
    planned = masu.run("plan", str(masu.source))
    assert planned.returncode == 4, "a plan says what apply would do"
    assert "refused: " in planned.stdout
    assert "mode 0777" in planned.stdout
    assert planned.stdout.endswith("\nnothing to do\n")
    assert "mode 0777" in masu.plan()["refused"][0]
    assert masu.run("plan", "--allow-unsafe-source", str(masu.source)).returncode == 2
    assert masu.traces() == []
    assert masu.apply("--allow-unsafe-source").returncode == 0
    masu.source.chmod(0o755)
    masu.start()
    pid = masu.running()
    until(lambda: "Ready" in masu.log(), "the daemon is there")
    masu.source.chmod(0o777)
    (masu.source / "web.yaml").unlink()
    until(lambda: "source frozen" in masu.run("status").stdout, "what it says does not count any more")
    assert masu.pid() == pid
    masu.source.chmod(0o755)
    masu.write(web(limits={"pids": {"max": 51}})).chmod(0o666)
    planned = masu.run("plan", str(masu.source))
    assert planned.returncode == 3, "as of apply"
    assert "web.yaml: may be written by others than root (mode 0666)" in planned.stdout
    (masu.source / "web.yaml").chmod(0o644)
    until(lambda: "source frozen" not in masu.run("status").stdout, "followed again", WAIT_S)


def test_a_copy_of_a_policy_will_do_to_validate(masu: Masu, policy: Policy) -> None:
    """On a machine that decides about changes, whomever it belongs to."""
    masu.write(web())
    policy.path.chmod(0o666)
    assert masu.run("validate", *policy.option, str(masu.source)).returncode == 0
