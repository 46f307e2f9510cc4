"""Secrets reach the container that is to have them, and nothing else that masu writes or says."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, until

pytestmark = pytest.mark.root

SECRETS = Path("/etc/masu/secrets")


class Secret:
    """One of the host's, with a name that nobody else has."""

    def __init__(self) -> None:
        self.name = "t-" + secrets.token_hex(6)
        self.path = SECRETS / self.name
        self.values: list[str] = []
        self.change()

    def change(self) -> str:
        value = "hunter2-" + secrets.token_hex(12)
        self.values.append(value)
        new = SECRETS / f".{self.name}.new"
        new.touch(0o600)
        new.write_text(value + "\n")
        new.rename(self.path)
        return value

    @property
    def value(self) -> str:
        return self.values[-1]


@pytest.fixture
def secret() -> Iterator[Secret]:
    made = [each for each in (SECRETS.parent, SECRETS) if not each.exists()]
    SECRETS.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = Secret()
    yield found
    found.path.unlink(missing_ok=True)
    for each in reversed(made):
        if not any(each.iterdir()):
            each.rmdir()


def wanting(secret: Secret, **spec: Any) -> dict[str, Any]:
    return container(
        process={"args": ["/bin/sleep", "100000"], "env": {"PASSWORD": {"secret": secret.name}}},
        **spec,
    )


def environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(each.split("=", 1) for each in text.split("\0") if each)


def given(pid: int, value: str) -> bool:
    """Once the runtime has become the program."""
    return until(lambda: environment(pid).get("PASSWORD") == value, f"{value} in {environment(pid)}")


def told(masu: Masu, secret: Secret | Sealed) -> list[str]:
    """Where a value can be found in what masu has written or says; the bundle config excepted."""
    texts = {
        "log": masu.log(),
        **{
            verb: (done := masu.run(*verb.split(), *([str(masu.source)] if "plan" in verb else []))).stdout
            + done.stderr
            for verb in (
                "plan",
                "plan -o json",
                "status web",
                "status -o json",
                "status -o metrics",
                "events",
            )
        },
    }
    bases = [Path(f"{base}/{masu.instance}") for base in ("/run/masu", "/var/lib/masu")]
    own = f"/run/masu/{masu.instance}/secrets/"
    files = [Path(parent) / name for base in bases for parent, _, names in os.walk(base) for name in names]
    files += Path("/var/log/masu").glob(f"{masu.instance}*")
    for path in files:
        if not str(path).startswith(own) and path.name != "config.json" and path.is_file():
            with contextlib.suppress(OSError):  # a namespace, or it has just gone
                texts[str(path)] = path.read_text(errors="replace")
    return [where for where, text in texts.items() if any(each in text for each in secret.values)]


@pytest.mark.parametrize("user", ["host", "auto"])
def test_files_are_in_memory_and_replaced_at_once(masu: Masu, secret: Secret, user: str) -> None:
    files = [{"secret": secret.name, "target": "/run/secrets/key", "owner": "1000:1001", "mode": "0440"}]
    masu.write(container(files=files, namespaces={"user": user}))
    masu.start("--resync", "300ms")
    pid = masu.running()
    inside = Path(f"/proc/{pid}/root/run/secrets/key")
    until(inside.exists, "it is there")
    assert inside.read_text() == secret.value + "\n"
    shown = masu.run("exec", "web", "--", "/bin/stat", "-c", "%u:%g %a", "/run/secrets/key").stdout
    assert shown.strip() == "1000:1001 440"
    mounts = masu.run("exec", "web", "--", "/bin/cat", "/proc/mounts").stdout
    (line,) = [each for each in mounts.splitlines() if each.split()[1] == "/run/secrets"]
    assert line.split()[2] == "tmpfs"
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[3].split(","))
    until(lambda: masu.status()["converged"], "converged")
    value = secret.change()
    until(lambda: inside.read_text() == value + "\n", "replaced")
    assert masu.pid() == pid, "without a restart"
    assert told(masu, secret) == []
    base = Path(f"/run/masu/{masu.instance}/secrets/web")
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    masu.write(container("other"))
    until(lambda: masu.traces("web") == [], "gone with its container")


def test_a_variable_has_the_value_and_a_change_restarts(masu: Masu, secret: Secret) -> None:
    masu.write(wanting(secret))
    masu.start("--resync", "300ms")
    pid = masu.running()
    assert given(pid, secret.value)
    assert told(masu, secret) == []
    bundle = Path(f"/run/masu/{masu.instance}/bundles/web/config.json")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    value = secret.change()
    pid = masu.restarted(pid)
    assert given(pid, value)
    until(lambda: "has changed" in masu.run("events").stdout, "told why")
    until(lambda: masu.status()["converged"], "converged")
    assert told(masu, secret) == []
    assert masu.stop() == 0
    assert masu.plan()["changes"] == []


def test_one_that_is_missing_is_waited_for_and_stops_nobody(masu: Masu, secret: Secret) -> None:
    secret.path.chmod(0o644)
    files = [{"secret": secret.name, "target": "/run/secrets/key"}]
    masu.write(wanting(secret, files=files), container("other"))
    masu.start("--resync", "300ms")
    masu.running("other")

    def said() -> list[str]:
        return [each["message"] for each in masu.status()["conditions"] if each["reason"] == "SecretMissing"]

    assert "may be read by others than root (mode 0644)" in until(said, "told")[0]
    assert masu.pid() == 0
    secret.path.chmod(0o600)
    pid = masu.running()
    secret.path.unlink()
    assert "No such file" in until(said, "told while it runs")[0]
    assert masu.pid() == pid
    assert Path(f"/proc/{pid}/root/run/secrets/key").read_text() == secret.value + "\n"
    secret.change()
    masu.restarted(pid)
    until(lambda: masu.status()["converged"], "converged")


class Sealed:
    """The key of a host, as whoever looks after it makes it, and what is sealed for it."""

    def __init__(self, kind: str, directory: Path) -> None:
        import pyrage  # an extra, which the virtual machine does not have

        self.pyrage = pyrage
        self.values: list[str] = []
        self.path = Path("/run") / f"masu-test-{secrets.token_hex(6)}.key"
        if kind == "age":
            identity = pyrage.x25519.Identity.generate()
            self._recipient = identity.to_public()
            text = f"# created: 2026-01-01T00:00:00Z\n# public key: {self._recipient}\n{identity}\n"
        else:
            key = directory / "key"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            text = key.read_text()
            self._recipient = pyrage.ssh.Recipient.from_str(Path(f"{key}.pub").read_text())
        self.path.touch(0o600)
        self.path.write_text(text)

    def seal(self) -> str:
        self.values.append("hunter2-" + secrets.token_hex(12))
        return bytes(self.pyrage.encrypt(self.values[-1].encode(), [self._recipient], armored=True)).decode()


@pytest.fixture(params=["age", "ssh"])
def sealed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sealed]:
    found = Sealed(request.param, tmp_path)
    yield found
    found.path.unlink(missing_ok=True)


def test_sealed_in_the_spec_it_is_opened_with_the_key_of_the_host(
    masu: Masu, sealed: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [{"age": sealed.seal(), "target": "/run/secrets/key"}]
    env = {"PASSWORD": {"age": sealed.seal()}}
    spec = container(process={"args": ["/bin/sleep", "100000"], "env": env}, files=files)
    masu.write(spec)
    monkeypatch.setenv("MASU_AGE_IDENTITY", str(sealed.path))
    masu.start("--resync", "300ms")
    pid = masu.running()
    assert given(pid, sealed.values[1])
    inside = Path(f"/proc/{pid}/root/run/secrets/key")
    assert inside.read_text() == sealed.values[0]
    until(lambda: masu.status()["converged"], "converged")
    files[0]["age"] = sealed.seal()
    masu.write(spec)
    until(lambda: inside.read_text() == sealed.values[-1], "replaced")
    assert masu.pid() == pid, "without a restart"
    sealed.path.unlink()
    until(lambda: [each for each in masu.status()["conditions"] if each["reason"] == "SecretMissing"], "told")
    assert masu.pid() == pid
    assert told(masu, sealed) == []


@pytest.mark.parametrize("sealed", ["age"], indirect=True)
def test_sealed_for_another_host_it_is_waited_for(
    masu: Masu, sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masu.write(container(files=[{"age": sealed.seal(), "target": "/run/secrets/key"}]))
    sealed.path.write_text(str(sealed.pyrage.x25519.Identity.generate()))
    monkeypatch.setenv("MASU_AGE_IDENTITY", str(sealed.path))
    assert masu.apply("--wait", "2s").returncode != 0
    assert "cannot be opened with the key of this host" in json.dumps(masu.status()["conditions"])
    sealed.path.write_text("AGE-SECRET-KEY-1")
    assert masu.apply("--wait", "1s").returncode != 0
    assert "is none that age knows" in json.dumps(masu.status()["conditions"])
    assert masu.run("validate", str(masu.source)).returncode == 0, "what is sealed is not looked into"


def test_killed_around_each_step_the_next_run_comes_to_the_same(masu: Masu, secret: Secret) -> None:
    files = [{"secret": secret.name, "target": "/run/secrets/key"}]
    other = container("other", state="stopped")
    for point in ("PutSecrets:1", "PutSecrets+:1", "ForgetSecrets:1", "ForgetSecrets+:1"):
        puts = point.startswith("Put")
        masu.write(other, wanting(secret, files=files))
        if puts:
            assert masu.apply(env={"MASU_FAIL_AT": point}).returncode == -signal.SIGKILL
        assert masu.apply().returncode == 0
        assert Path(f"/proc/{masu.pid()}/root/run/secrets/key").read_text() == secret.value + "\n"
        if not puts:
            masu.write(other)
            assert masu.apply(env={"MASU_FAIL_AT": point}).returncode == -signal.SIGKILL
        masu.write(other)
        assert masu.apply().returncode == 0
        assert masu.traces("web") == []
        assert f"/run/masu/{masu.instance}/secrets" not in Path("/proc/self/mountinfo").read_text()


def test_without_its_secret_nobody_is_ended_to_be_born_again(masu: Masu, secret: Secret) -> None:
    masu.write(wanting(secret))
    assert masu.apply().returncode == 0
    assert masu.run("checkpoint", "web").returncode == 0
    pid = masu.pid()
    masu.write(wanting(secret, checkpoint={"mode": "stop"}))
    assert masu.apply().returncode == 0
    secret.path.unlink()
    for verb in ("restore", "checkpoint"):
        done = masu.run(verb, "web")
        assert done.returncode == 1
        assert f"reading secret {secret.name}" in done.stderr
        assert masu.pid() == pid
    secret.change()
    assert masu.run("checkpoint", "web").returncode == 0
    assert masu.pid() not in {0, pid}
    assert given(masu.pid(), secret.values[0]), "memory is that of the checkpoint"


def test_an_edit_that_names_a_secret_that_is_not_there_stops_nobody(masu: Masu, secret: Secret) -> None:
    masu.write(wanting(secret))
    masu.start("--resync", "300ms")
    pid = masu.running()
    for edit in (
        {"process": {"args": ["/bin/sleep", "100000"], "env": {"PASSWORD": {"secret": "t-none"}}}},
        {"files": [{"secret": "t-none", "target": "/run/secrets/key"}]},
    ):
        masu.write(wanting(secret) | container(**edit))
        until(lambda: "LaunchWouldFail" in str(masu.status()["conditions"]), "told")
        assert "what runs is kept until it is" in str(masu.status()["conditions"])
        assert masu.pid() == pid
    masu.write(wanting(secret, files=[{"secret": secret.name, "target": "/run/secrets/key"}]))
    masu.restarted(pid)
