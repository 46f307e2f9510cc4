"""Bandwidth of containers, with real traffic: iperf3 between a container's network namespace and the host's."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from tests.e2e.harness import NetworkedMasu, container, growth, network, until

HOST = "10.88.0.1"
ADDRESSES = {"web": "10.88.0.10", "near": "10.88.0.11", "far": "10.88.0.12"}
MBIT = 1_000_000
PORT = 5201
RATE_WITHIN_S = 5.0

BYTES_RECEIVED = re.compile(r"\bbytes_received:(\d+)")
PASSED = re.compile(r"direct_packets_stat \d+ ")

Some = TypeVar("Some")

pytestmark = pytest.mark.alone


def on(name: str = "web", group: str = "", **entry: Any) -> dict[str, Any]:
    """A container on the network `front`."""
    spec: dict[str, Any] = {"networks": [{"network": "front", "addresses": [ADDRESSES[name]], **entry}]}
    return container(name, **spec, **({"group": group} if group else {}))


def front(**spec: Any) -> dict[str, Any]:
    return network("front", subnets=["10.88.0.0/24"], **spec)


@contextmanager
def serving(masu: NetworkedMasu, where: str, port: int) -> Iterator[subprocess.Popen[str]]:
    argv = [*masu.at(where), "iperf3", "-s", "-1", "-J", "-i", "0.25", "-p", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            until(lambda: _listens(masu, where, port), "iperf3 listens")
            yield server
        finally:
            server.kill()


def _listens(masu: NetworkedMasu, where: str, port: int) -> bool:
    return f":{port} " in masu.inside(where, "ss", "-Hltn")


def sending(masu: NetworkedMasu, start: str, end: str, port: int, seconds: float) -> list[str]:
    address = ADDRESSES.get(end, HOST)
    return [*masu.at(start), "iperf3", "-c", address, "-p", str(port), "-t", str(seconds)]


def transfer(
    masu: NetworkedMasu, start: str, end: str, *words: str, seconds: float = 3, port: int = PORT
) -> dict[str, Any]:
    """The receiver's report; "" is the host."""
    with serving(masu, end, port) as server:
        client = sending(masu, start, end, port, seconds)
        done = subprocess.run(
            [*client, *words], capture_output=True, text=True, timeout=seconds + 20, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(server.communicate(timeout=10)[0])
        return report


@contextmanager
def endless(masu: NetworkedMasu, start: str, end: str) -> Iterator[Callable[[], float]]:
    """A transfer over one connection that goes on meanwhile; the Mbit/s of payload that come in within a second."""

    def total() -> int:
        shown = masu.inside(end, "ss", "-Htin", f"sport = :{PORT}")
        return sum(map(int, BYTES_RECEIVED.findall(shown)))

    client = sending(masu, start, end, PORT, 600)
    with serving(masu, end, PORT), subprocess.Popen(client, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: total() > MBIT, "it sends")
            yield lambda: growth(total) * 8 / MBIT
        finally:
            process.kill()


def received(report: dict[str, Any]) -> float:
    """Mbit/s of the network layer, from the first byte to the last."""
    found = report["end"]["sum_received"]["bits_per_second"]
    udp = report["start"]["test_start"]["protocol"] == "UDP"
    payload, whole = (1448, 1476) if udp else (1448, 1500)
    return float(found) * whole / payload / MBIT


def at_once(masu: NetworkedMasu, *pairs: tuple[str, str], seconds: float) -> list[float]:
    with ThreadPoolExecutor(len(pairs)) as pool:
        found = [
            pool.submit(transfer, masu, *pair, seconds=seconds, port=PORT + place)
            for place, pair in enumerate(pairs)
        ]
        return [received(each.result()) for each in found]


def measured(measure: Callable[[float], Some], right: Callable[[Some], bool]) -> Some:
    """For so many seconds, up to three times: a limit that is wrong is so each time; a busy machine is not."""
    for seconds in (3, 3):
        found = measure(seconds)
        if right(found):
            return found
    return measure(6)


@pytest.mark.parametrize("mbit", [pytest.param(10, marks=pytest.mark.on_v2_long), 100, 1000])
def test_a_container_gets_its_rate_in_both_directions(networked: NetworkedMasu, mbit: int) -> None:
    """Less only where a container without a limit gets no further either: then this machine is the limit."""
    limit = {"max": f"{mbit}Mbit"}
    networked.write(front(), on(egress=limit, ingress=limit), on("near"))
    assert networked.apply().returncode == 0
    for start, end in (("web", ""), ("", "web")):
        for words in ((), ("-u", "-l", "1448", "-b", f"{mbit * 3 // 2}M")):
            rate, able = measured(
                lambda seconds: _rate_and_able(networked, mbit, start, end, *words, seconds=seconds),  # noqa: B023
                lambda found: 0.95 * found[1] <= found[0] <= 1.05 * mbit,
            )
            assert 0.95 * able <= rate <= 1.05 * mbit, (start, end, words)


def _rate_and_able(
    masu: NetworkedMasu, mbit: int, start: str, end: str, *words: str, seconds: float
) -> tuple[float, float]:
    """What web gets, and what of its limit this machine is able to give, which is asked only where that is less."""
    rate = received(transfer(masu, start, end, *words, seconds=seconds))
    if rate >= 0.95 * mbit:
        return rate, mbit
    free = {"web": "near", "": ""}
    return rate, min(mbit, received(transfer(masu, free[start], free[end], *words, seconds=seconds)))


def test_a_guaranteed_container_keeps_its_rate_beside_a_greedy_one(networked: NetworkedMasu) -> None:
    budget = {"max": "100Mbit"}
    media = on(egress={"min": "80Mbit"}, ingress={"min": "80Mbit"})
    networked.write(front(egress=budget, ingress=budget), media, on("near"))
    assert networked.apply().returncode == 0
    for pairs in ((("web", ""), ("near", "")), (("", "web"), ("", "near"))):
        media_rate, greedy = measured(
            lambda seconds: at_once(networked, *pairs, seconds=seconds),  # noqa: B023
            lambda rates: rates[0] >= 76 and 95 <= sum(rates) <= 105,
        )
        assert media_rate >= 76, (pairs, media_rate, greedy)
        assert 95 <= media_rate + greedy <= 105, (pairs, media_rate, greedy)
    (alone,) = measured(
        lambda seconds: at_once(networked, ("near", ""), seconds=seconds), lambda rates: 95 <= rates[0] <= 105
    )
    assert 95 <= alone <= 105, "what nobody uses is for whoever wants it"


def test_the_members_of_a_group_share_one_budget(networked: NetworkedMasu) -> None:
    group = {
        "apiVersion": "masu/v1",
        "kind": "Group",
        "metadata": {"name": "media"},
        "spec": {"network": {"egress": {"max": "50Mbit"}}},
    }
    networked.write(front(), group, on(group="media"), on("near", group="media"), on("far"))
    assert networked.apply().returncode == 0
    one, other, free = measured(
        lambda seconds: at_once(networked, ("web", ""), ("near", ""), ("far", ""), seconds=seconds),
        lambda rates: 47 <= rates[0] + rates[1] <= 53 and min(rates[:2]) >= 20,
    )
    assert 47 <= one + other <= 53, (one, other)
    assert min(one, other) >= 20, (one, other)
    assert free > 200, free


def test_a_rate_changes_under_a_running_transfer(networked: NetworkedMasu) -> None:
    """From a limit of its own to another, to a share of the network's, and to none at all."""
    networked.write(front(), on(egress={"max": "50Mbit"}))
    networked.start()
    pid = networked.running()
    with endless(networked, "web", "") as rate:
        for specs, least, most in (
            ([front(), on(egress={"max": "50Mbit"})], 45, 52),
            ([front(), on(egress={"max": "200Mbit"})], 180, 210),
            ([front(egress={"max": "20Mbit"}), on()], 17, 21),
            ([front(), on()], 300, math.inf),
        ):
            networked.write(*specs)
            _becomes(rate, least, most)
    assert networked.pid() == pid


def _becomes(rate: Callable[[], float], least: float, most: float) -> None:
    seen: list[float] = []

    def right() -> bool:
        seen.append(rate())
        return least <= seen[-1] <= most

    until(right, lambda: f"from {least} to {most}: {seen}", RATE_WITHIN_S)


@pytest.mark.on_v2_long
def test_limits_are_repaired(networked: NetworkedMasu) -> None:
    budget = {"max": "100Mbit"}
    alone = network("back", subnets=["10.89.0.0/24"])
    web = container(
        "web",
        networks=[
            {"network": "front", "egress": {"min": "10Mbit"}},
            {"network": "back", "egress": {"max": "10Mbit"}, "ingress": {"max": "10Mbit"}},
        ],
    )
    networked.write(front(egress=budget, ingress=budget), alone, web)
    networked.start()
    pid = networked.running()
    until(lambda: networked.plan()["changes"] == [], networked.log)
    funnel = next(each for each in networked.links() if each.startswith("mo"))
    (bucket,) = (each for each in networked.links() if "tbf" in networked.tc("qdisc", "show", "dev", each))
    before = _queueing(networked)
    for where, command in (
        ("web", "tc qdisc del dev eth1 root"),
        ("web", "tc qdisc change dev eth1 root tbf rate 1gbit burst 1mb latency 50ms"),
        ("", f"tc qdisc del dev {bucket} root"),
        ("", f"tc qdisc replace dev {bucket} root pfifo"),
        ("", f"tc qdisc del dev {funnel} root"),
        ("", f"tc class change dev {funnel} classid 1:1 htb rate 1gbit"),
        ("", f"tc filter del dev {funnel}"),
        ("", f"ip link set {funnel} down"),
        ("", f"ip link del {funnel}"),
    ):
        networked.inside(where, *command.split())
        until(
            lambda: _queueing(networked) == before,
            lambda command=command: f"{command}: {before} {_queueing(networked)}",
        )
    until(lambda: networked.plan()["changes"] == [], networked.log)
    assert networked.pid() == pid


def _queueing(masu: NetworkedMasu) -> list[str]:
    """Everything that tc shows, but numbers of links and of actions, and what passed before there were classes."""
    found = []
    for where in ("", "web"):
        for name in (each["ifname"] for each in masu.ip_json(where, "link")):
            for what in ("qdisc", "class", "filter", "filter ingress", "filter egress"):
                kind, _, hook = what.partition(" ")
                shown = masu.inside(where, "tc", kind, "show", "dev", name, *([hook] if hook else []))
                lines = (line for line in shown.splitlines() if "index" not in line)
                found.append(f"{where} {name} {what} {PASSED.sub('', ' '.join(lines))}")
    return sorted(found)


def test_a_limit_that_cannot_be_is_refused(networked: NetworkedMasu) -> None:
    outside = network("lan", type="macvlan", parent="nic0", subnets=["10.90.0.0/24"])
    networked.write(outside, container("web", networks=[{"network": "lan", "ingress": {"max": "10Mbit"}}]))
    found = networked.run("validate", str(networked.source))
    assert found.returncode != 0
    assert "ingress" in found.stdout + found.stderr
    networked.write(
        front(egress={"max": "100Mbit"}), on(egress={"min": "60Mbit"}), on("near", egress={"min": "60Mbit"})
    )
    found = networked.run("validate", str(networked.source))
    assert found.returncode != 0
    assert "120Mbit" in found.stdout + found.stderr
