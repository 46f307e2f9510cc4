"""Every example in specs/ and examples/ is converged, and does what its comments say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.harness import CHECKOUT, Masu, NetworkedMasu, until

SPECS = sorted((CHECKOUT / "specs").glob("*.yaml"))
ON_NETWORKS = CHECKOUT / "examples"
"""They change the host's network: here that is a namespace of the test's own."""


def test_there_are_examples_and_each_begins_with_a_comment() -> None:
    assert len(SPECS) >= 6
    assert all(path.read_text().startswith("# ") for path in SPECS)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_example_converges_and_goes(masu: Masu, path: Path) -> None:
    _converges_and_goes(masu, path)


def test_no_example_of_specs_touches_the_network_of_the_host() -> None:
    for path in SPECS:
        for each in yaml.safe_load_all(path.read_text()):
            assert each["kind"] in {"Container", "Group", "Volume"}
            assert not {"networks", "ports"} & set(each["spec"]), path


def test_servers_are_reached_as_their_example_says(networked: NetworkedMasu) -> None:
    shutil.copy(ON_NETWORKS / "servers.yaml", networked.source)
    assert networked.apply().returncode == 0
    assert networked.fetch("", "127.0.0.1", 8080) in {"200", "404"}
    by_name = networked.run("exec", "shop", "--", "wget", "-qO-", "http://ledger:5432/")
    assert "masu" in by_name.stdout, by_name.stderr
    assert networked.fetch("shop", "10.89.0.20", 5432) in {"200", "404"}
    assert networked.fetch("curious", "10.89.0.20", 5432) == "TimeoutError: timed out"
    told = networked.run("status", "back").stdout
    assert re.search(r"rule ledger: [1-9][0-9]* packets", told), told
    _converges_and_goes(networked, ON_NETWORKS / "servers.yaml")


def test_the_media_server_has_its_share_as_its_example_says(networked: NetworkedMasu) -> None:
    _converges_and_goes(networked, ON_NETWORKS / "media.yaml", down=False)
    (funnel,) = (each for each in networked.links() if each.startswith("mo"))
    rates = [line.split() for line in networked.tc("class", "show", "dev", funnel).splitlines()]
    assert any("80Mbit" in each and "100Mbit" in each for each in rates), rates
    assert networked.fetch("", "127.0.0.1", 8096) in {"200", "404"}


def test_a_careful_host_says_what_it_has_promised_as_its_example_says(masu: Masu) -> None:
    _converges_and_goes(masu, ON_NETWORKS / "node.yaml", down=False)
    told = masu.run("status").stdout
    assert re.search(r"memory\.max +\S+ +128Mi +96Mi +2 +- +refuse", told), told
    assert re.search(r"cpu\.max .* 0\.7 cpus +2 +- +refuse", told), told


def _converges_and_goes(masu: Masu, path: Path, *, down: bool = True) -> None:
    shutil.copy(path, masu.source)
    documents = list(yaml.safe_load_all(path.read_text()))
    names = [each["metadata"]["name"] for each in documents if each["kind"] == "Container"]
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
    warned = [each for each in masu.events() if each.get("level") == "warning"]
    assert [each for each in warned if not each["type"].startswith("Coarse")] == [], (
        "but for what v1 is less in"
    )
    if down:
        assert masu.run("down", "--all", "--volumes").returncode == 0
        assert masu.traces() == []


def test_all_examples_together_do_what_they_say(masu: Masu) -> None:
    for path in SPECS:
        shutil.copy(path, masu.source)
    masu.start()
    documents = [each for path in SPECS for each in yaml.safe_load_all(path.read_text())]
    names = {each["metadata"]["name"] for each in documents if each["kind"] == "Container"}

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
    shown = masu.run("exec", "clock", "--", "cat", "/proc/uptime").stdout
    ahead = float(shown.split()[0]) - float(Path("/proc/uptime").read_text().split()[0])
    assert 10 * 86400 - 10 < ahead <= 10 * 86400, "ten days, but for the time until the host was asked"
    assert "Apache" in masu.run("exec", "shared-files", "--", "ls", "/srv").stdout
