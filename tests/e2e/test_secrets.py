"""Secrets reach the container that is to have them, and nothing else that masu writes or says."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
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


def told(masu: Masu, secret: Secret) -> list[str]:
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
    assert environment(pid)["PASSWORD"] == secret.value
    assert told(masu, secret) == []
    bundle = Path(f"/run/masu/{masu.instance}/bundles/web/config.json")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    value = secret.change()
    pid = masu.restarted(pid)
    assert environment(pid)["PASSWORD"] == value
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
