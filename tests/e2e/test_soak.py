"""Networked containers come and go under one daemon while somebody meddles: nothing grows, nothing is left.

`make soak` does it for longer: MASU_SOAK is the number of rounds.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import NetworkedMasu, container, network, until

ROUNDS = int(os.environ.get("MASU_SOAK", "4"))
WARM_UP = 2
WORKERS = [f"worker{number}" for number in range(6)]
SETTLED = max(WARM_UP, ROUNDS // 2) - 1
"""What comes and goes leaves gaps in memory, fewer and fewer of them: half of the rounds later that is over."""
GROWTH_KIB = 6 * 1024 * (WARM_UP + ROUNDS - 1 - SETTLED) // ROUNDS
"""From then on; six MiB in all rounds, and no more of it in one than in another."""

NETWORKS = [
    network(
        "front", subnets=["10.88.0.0/24", "fd88::/64"], egress={"max": "1Gbit"}, policy={"within": "deny"}
    ),
    network("back", subnets=["10.89.0.0/24"]),
]


def _worker(name: str) -> dict[str, Any]:
    number = WORKERS.index(name)
    entries = [
        {"network": "front", "egress": {"min": "10Mbit"}},
        {"network": "back", "ingress": {"max": "1Gbit"}},
    ]
    return container(name, networks=entries, ports=[f"127.0.0.1:{9000 + number}:80"])


def _size(masu: NetworkedMasu) -> dict[str, int]:
    """What must not grow from round to round."""
    assert masu.daemon is not None
    mounts = Path("/proc/self/mounts").read_text()
    return {
        "open files": len(os.listdir(f"/proc/{masu.daemon.pid}/fd")),
        "threads": len(os.listdir(f"/proc/{masu.daemon.pid}/task")),
        "open files of the keeper": len(os.listdir(f"/proc/{masu.keeper()}/fd")),
        "links": len(masu.ip_json("", "link")),
        "routes": len(masu.ip_json("", "route")),
        "queueing": masu.tc("qdisc").count("\n"),
        "rules": masu.inside("", "nft", "-a", "list", "ruleset").count("handle"),
        "mounts": mounts.count(masu.instance),
        "traces": len(masu.traces()),
        "processes": len(masu.processes()),
    }


def _resident_kib(masu: NetworkedMasu) -> int:
    assert masu.daemon is not None
    lines = Path(f"/proc/{masu.daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _links_of(masu: NetworkedMasu, name: str) -> list[str]:
    mark = f"masu/{masu.instance}/container/{name}/"
    return [each["ifname"] for each in masu.ip_json("", "link") if mark in each.get("ifalias", "")]


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_nothing_grows_while_containers_come_and_go(networked: NetworkedMasu) -> None:
    networked.write(*NETWORKS, container("kept", networks=[{"network": "front"}]), file="kept.yaml")
    networked.start("--allow-removals")
    kept = networked.running("kept")
    sizes, resident = [], []
    for _ in range(WARM_UP + ROUNDS):
        networked.write(*(_worker(each) for each in WORKERS))
        for each in WORKERS:
            networked.running(each)
        _meddle(networked)
        (networked.source / "web.yaml").unlink()
        until(
            lambda: not any(networked.traces(each) or _links_of(networked, each) for each in WORKERS),
            lambda: str(networked.log()[-3000:]),
        )
        until(lambda: networked.status("kept")["converged"], "the one that stays is as it should be")
        sizes.append(_size(networked))
        resident.append(_resident_kib(networked))
    assert sizes[-1] == sizes[WARM_UP - 1]
    assert resident[-1] - resident[SETTLED] < GROWTH_KIB, " ".join(map(str, resident))
    assert networked.pid("kept") == kept
    assert "Defect" not in networked.log()
    assert networked.stop() == 0


def _converged(masu: NetworkedMasu) -> set[str]:
    whole = json.loads(masu.run("status", "-o", "json").stdout)
    return {each["name"] for each in whole["containers"] if each["converged"]}


def _meddle(masu: NetworkedMasu) -> None:
    """A veth, an address, the ruleset, a qdisc, a bridge, and a process: each is there again."""
    first, second, third, *_ = WORKERS
    for link in _links_of(masu, first):
        masu.ip("link", "del", link)
    masu.inside(second, "ip", "addr", "flush", "dev", "eth0")
    masu.inside("", "nft", "flush", "ruleset")
    back = masu.networks()["back"]["link"]
    masu.ip("link", "del", back)
    before = masu.pid(third)
    os.kill(before, signal.SIGKILL)
    masu.restarted(before, third)
    until(lambda: len(_links_of(masu, first)) >= len(WORKERS[:2]), "the veths are there again")
    until(
        lambda: masu.ip_json(second, "-4", "addr", "show", "dev", "eth0")[0]["addr_info"],
        "the address is back",
    )
    until(lambda: "masu" in masu.inside("", "nft", "list", "tables"), "the rules are back")
    until(lambda: back in [each["ifname"] for each in masu.ip_json("", "link")], "the bridge is back")
    until(lambda: _converged(masu) >= {*WORKERS, "kept"}, lambda: str(masu.log()[-3000:]))
