"""Every write that masu makes is a line of the audit log, and so is what it was asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, memory_max, set_knob, until

pytestmark = pytest.mark.root


def steps(masu: Masu, name: str = "web") -> list[dict[str, Any]]:
    return [each for each in masu.audit() if each.get("container") == name and "step" in each]


def test_create_repair_and_delete(masu: Masu) -> None:
    masu.write(container(limits={"memory": {"max": "64Mi"}}), container("other"))
    masu.start()
    masu.running()
    until(lambda: any(each["step"] == "LaunchContainer" for each in steps(masu)), "the birth is written down")
    revision = until(lambda: masu.status() and masu.run("status", "-o", "json").stdout, "")
    born = {each["step"] for each in steps(masu)}
    assert {"CreateCgroup", "WriteBundle", "LaunchContainer", "PrepareLayer"} <= born
    (limit,) = [each for each in steps(masu) if each.get("key") == "memory.max"]
    assert (limit["new"], limit["outcome"]) == ("67108864", "done")
    assert limit["revision"]
    assert f'"revision": "{limit["revision"]}"' in revision

    before = len(steps(masu))
    set_knob(memory_max(masu), "100003840")
    until(lambda: len(steps(masu)) > before, "the repair is written down")
    repaired = steps(masu)[before]
    assert (repaired["key"], repaired["old"], repaired["new"]) == ("memory.max", "100003840", "67108864")

    before = len(steps(masu))
    masu.write(container("other"))
    until(lambda: "RemoveRecord" in [each["step"] for each in steps(masu)[before:]], "the removal, too")
    gone = [each["step"] for each in steps(masu)[before:]]
    assert {"StopContainer", "RemoveLayer", "RemoveCgroup", "RemoveRecord"} <= set(gone)
    assert "Await" not in gone

    path = Path(f"/var/log/masu/{masu.instance}.audit.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    count = len(masu.audit())
    assert masu.stop() == 0
    assert masu.apply().returncode == 0
    assert masu.audit()[count:] == [], "twice is once, and no write at all"
    masu.write(container("other", limits={"pids": {"max": 9}}))
    assert masu.apply().returncode == 0
    assert [each.get("request") for each in masu.audit()[count:]][-1] == "apply"


def test_what_fails_says_why(masu: Masu) -> None:
    masu.write(container(process={"args": ["/bin/nonexistent"]}))
    masu.apply("--wait", "2s")
    (asked,) = [each for each in masu.audit() if each.get("request") == "apply"]
    assert (asked["outcome"], asked["why"]) == ("failed", "not everything has converged")
    failed = [each for each in steps(masu) if each["outcome"] == "failed"]
    assert failed
    assert failed[0]["step"] == "LaunchContainer"
    assert "nonexistent" in failed[0]["why"]


def test_who_asked_for_what(masu: Masu) -> None:
    """Over the socket of the daemon, and without one."""
    masu.write(container())
    masu.start()
    masu.running()
    socket = Path(f"/run/masu/{masu.instance}/control.socket")
    until(socket.exists, "the daemon listens")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    asking = masu.spawn("restore", "web", "--from", "none")
    assert asking.wait(20) != 0
    assert masu.run("exec", "web", "--", "/bin/true").returncode == 0

    def asked(verb: str) -> list[dict[str, Any]]:
        return [each for each in masu.audit() if each.get("request") == verb]

    (restore,) = until(lambda: asked("restore"), "the request is written down")
    assert (restore["pid"], restore["uid"]) == (asking.pid, 0)
    assert restore["outcome"] in {"failed", "refused"}
    assert restore["why"]
    assert asked("exec")[0]["container"] == "web"
    assert asked("exec")[0]["revision"] == masu.audit()[0]["revision"] != ""
    assert asked("run")[0]["pid"] == masu.daemon.pid if masu.daemon else False
    assert masu.stop() == 0
    assert masu.run("down", "web").returncode == 0
    (down,) = asked("down")
    assert (down["container"], down["uid"], down["outcome"]) == ("web", os.geteuid(), "done")
