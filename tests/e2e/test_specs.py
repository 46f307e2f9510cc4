"""Every example in specs/ is converged, alone and all together, and does what its comments say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.harness import CHECKOUT, Masu, until

SPECS = sorted((CHECKOUT / "specs").glob("*.yaml"))


def test_there_are_examples_and_each_begins_with_a_comment() -> None:
    assert len(SPECS) >= 6
    assert all(path.read_text().startswith("# ") for path in SPECS)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_example_converges_and_goes(masu: Masu, path: Path) -> None:
    shutil.copy(path, masu.source)
    names = [each["metadata"]["name"] for each in yaml.safe_load_all(path.read_text())]
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    for name in names:
        status = masu.status(name)
        assert status["converged"], status
        assert status["state"] in {"running", "exited"}, status
        assert status["drift"] == []
    settled = [
        each for each in masu.plan()["changes"] if each["action"] != "none"
    ]  # a job may just have ended
    assert settled == []
    assert [each for each in masu.events() if each.get("level") == "warning"] == []
    assert masu.run("down", "--all").returncode == 0
    assert masu.traces() == []


def test_all_examples_together_do_what_they_say(masu: Masu) -> None:
    for path in SPECS:
        shutil.copy(path, masu.source)
    masu.start()
    names = {each["metadata"]["name"] for path in SPECS for each in yaml.safe_load_all(path.read_text())}

    def converged() -> bool:
        whole = json.loads(masu.run("status", "-o", "json").stdout)["containers"]
        return {each["name"] for each in whole if each["converged"]} == names

    until(converged, f"all converge: {masu.log()[-2000:]}", 30)
    fetched = masu.run("exec", "web", "--", "wget", "-qO-", "http://127.0.0.1/")
    assert "masu" in fetched.stdout
    until(lambda: masu.status("batch")["exitCode"] == 0, "the batch ends")
    assert masu.run("logs", "batch").stdout.splitlines() == [f"part {number} of 3" for number in (1, 2, 3)]
    until(lambda: "up" in masu.run("logs", "watcher").stdout, "the watcher sees the server")
    assert masu.run("exec", "sandbox", "--", "touch", "/x").returncode != 0
    assert "up 10 days" in masu.run("exec", "clock", "--", "uptime").stdout
    assert "Apache" in masu.run("exec", "shared-files", "--", "ls", "/srv").stdout
