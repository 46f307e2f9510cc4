"""The packet filter on a real kernel, with real traffic, in network namespaces of its own."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controller.errors import HostLacks, NotReadBack, StepFailed
from controller.host import nftables
from controller.host.nftables import NEVER_APPLIED, NftablesFirewall
from controller.host.ruleset_bridge import Scope
from controller.model.firewall import Allowance, FilteredBridge, Firewall, Ports, Publication
from tests.e2e.harness import until
from tests.integration.networks import TCP, UDP, Network, Try, ip, nft

pytestmark = pytest.mark.root

T = TypeVar("T")

SCOPE = Scope("masu_test", "mbtest-", "mvtest-")
NETWORKS = {"front": 1, "back": 2, "open": 3, "late": 4}
CONTAINERS = ("front-a", "front-b", "back-a", "back-b", "back-c", "open-a", "late-a", "late-b")
SERVICES = ((TCP, 80), (UDP, 53))
LISTED = ("-j", "list", "ruleset")


def gateway(version: int, network: str) -> str:
    number = NETWORKS[network]
    return f"10.88.{number}.1" if version == 4 else f"fd00:{number}::1"


def subnets(network: str) -> tuple[str, str]:
    number = NETWORKS[network]
    return f"10.88.{number}.0/24", f"fd00:{number}::/64"


def at(version: int, name: str) -> str:
    """Of whoever is in the little internet."""
    if name in {"host", "outside", "nowhere"}:
        last = {"host": 1, "outside": 2, "nowhere": 9}[name]
        return f"192.0.2.{last}" if version == 4 else f"2001:db8::{last}"
    network, _, one = name.partition("-")
    last = 10 + "abc".index(one)
    return f"10.88.{NETWORKS[network]}.{last}" if version == 4 else f"fd00:{NETWORKS[network]}::{last}"


def both(name: str) -> tuple[str, str]:
    return at(4, name), at(6, name)


def published(host_port: int, name: str, host: str = "") -> list[Publication]:
    """In both families, TCP to 80 and UDP to 53."""
    network = name.partition("-")[0]
    return [
        Publication(
            protocol, at(version, host) if host else "", host_port, at(version, name), port, name, network
        )  # type: ignore[arg-type]
        for version in (4, 6)
        for protocol, port in SERVICES
    ]


FRONT = FilteredBridge("front", "mbtest-front", subnets("front"), nat=True)
BACK = FilteredBridge("back", "mbtest-back", subnets("back"), nat=True, within="deny")
OPEN = FilteredBridge("open", "mbtest-open", subnets("open"), nat=False)
WEB = Allowance(
    "back/web",
    "back",
    (*both("front-a"), *both("back-c")),
    both("back-a"),
    (Ports("tcp", 80, 80), Ports("udp", 53, 60)),
)
ANY = Allowance("open/any", "open", subnets("back"), both("open-a"))
ALL = Firewall(
    (FRONT, BACK, OPEN),
    (*published(8000, "front-a"), *published(8001, "back-a", "host"), *published(8003, "front-a", "nowhere")),
    (WEB, ANY),
)


def build(net: Network) -> None:
    """A host with four bridges and a neighbour outside, who knows the way to the containers."""
    host, outside = net.add("host"), net.add("outside")
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"):
        host.sysctl(path, "1")
    lines = [f"link add up0 type veth peer name up0 netns {outside.path}", "link set up0 up"]
    lines += [f"addr add {at(4, 'host')}/24 dev up0", f"addr add {at(6, 'host')}/64 dev up0 nodad"]
    for network in NETWORKS:
        link = SCOPE.bridges + network
        lines += [f"link add {link} type bridge mcast_snooping 0", f"link set {link} up"]
        lines += [f"addr add {gateway(4, network)}/24 dev {link}"]
        lines += [f"addr add {gateway(6, network)}/64 dev {link} nodad"]
    host.call(lambda: ip(*lines))
    for network in ("front", "back"):
        host.sysctl(f"ipv4/conf/{SCOPE.bridges}{network}/route_localnet", "1")
    ways = ["addr add 192.0.2.2/24 dev up0", "addr add 2001:db8::2/64 dev up0 nodad", "link set up0 up"]
    ways += ["addr add 192.0.2.9/24 dev up0", "addr add 2001:db8::9/64 dev up0 nodad preferred_lft 0"]
    ways += ["route add 10.88.0.0/16 via 192.0.2.1", "route add fd00::/16 via 2001:db8::1"]
    outside.call(lambda: ip(*ways))
    for name in CONTAINERS:
        _attach(net, name)
    net.servers.listen(outside, 8000)
    net.servers.listen(outside, 8003)
    net.servers.listen(host, 22)
    _settle(net)


def _settle(net: Network) -> None:
    """Until everybody is found by his neighbours: a solicitation that was lost is repeated only after a second."""
    ways = [Try("outside", at(version, name), 80) for version in (4, 6) for name in CONTAINERS]
    until(lambda: all(net.answers(ways)), "everybody can be reached without a packet filter")


def _attach(net: Network, name: str) -> None:
    network = name.partition("-")[0]
    place = net.add(name)
    place.sysctl("ipv6/conf/default/accept_dad", "0")
    port = SCOPE.ports + name
    veth = f"link add {port} type veth peer name eth0 netns {place.path}"
    net["host"].call(lambda: ip(veth, f"link set {port} master {SCOPE.bridges}{network} up"))
    inside = [f"addr add {at(4, name)}/24 dev eth0", f"addr add {at(6, name)}/64 dev eth0 nodad"]
    inside += ["link set eth0 up"]
    inside += [f"route add default via {gateway(version, network)}" for version in (4, 6)]
    place.call(lambda: ip(*inside))
    net.servers.listen(place, 80)
    net.servers.listen(place, 53)


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    made = Network()
    try:
        build(made)
        yield made
    finally:
        made.close()


class OnHost:
    """The driver, and nft, in the little internet's host."""

    def __init__(self, net: Network, directory: Path) -> None:
        self.net, self.baseline = net, directory / "run" / "firewall.json"
        self.driver = self.another()

    def another(self, scope: Scope = SCOPE) -> NftablesFirewall:
        return NftablesFirewall(scope, str(self.baseline))

    def call(self, work: Callable[[], T]) -> T:
        return self.net["host"].call(work)

    def apply(self, firewall: Firewall = ALL) -> None:
        self.call(lambda: self.driver.apply(firewall))

    def state(self, firewall: Firewall = ALL) -> str | None:
        return self.call(lambda: self.driver.state(firewall))

    def counters(self) -> dict[str, int]:
        found = self.call(self.driver.counters)
        return {name: packets for name, (packets, _) in found.items()}

    def nft(self, words: str) -> None:
        self.call(lambda: nft(words))

    def listing(self, *words: str) -> Any:
        command = ["timeout", "10", "nft", *(words or LISTED)]
        done = self.call(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
        return json.loads(done.stdout)["nftables"][1:]


@pytest.fixture
def host(net: Network, tmp_path: Path) -> Iterator[OnHost]:
    yield OnHost(net, tmp_path)
    net["host"].call(lambda: nft("flush ruleset"))


@pytest.fixture(params=[0, 1], ids=["bridged frames alone", "bridged frames to inet too"])
def br_netfilter(net: Network, request: pytest.FixtureRequest) -> int:
    for each in ("iptables", "ip6tables"):
        net["host"].sysctl(f"bridge/bridge-nf-call-{each}", str(request.param))
    hairpin = "on" if request.param else "off"
    lines = [f"link set {SCOPE.ports}{name} type bridge_slave hairpin {hairpin}" for name in CONTAINERS]
    net["host"].call(lambda: ip(*lines))
    return int(request.param)


def expect(net: Network, wanted: Iterable[tuple[Try, str]]) -> None:
    pairs = list(wanted)
    answers = net.answers(each for each, _ in pairs)
    wrong = [
        (each, answer, right) for (each, right), answer in zip(pairs, answers, strict=True) if answer != right
    ]
    assert not wrong, "\n".join(f"{each}: {answer!r} instead of {right!r}" for each, answer, right in wrong)


def to_service(who: str, version: int, name: str, right: str) -> Iterator[tuple[Try, str]]:
    """To the container's own address, by both protocols."""
    for protocol, port in SERVICES:
        yield Try(who, at(version, name), port, protocol), right


def to_port(who: str, address: str, port: int, right: str) -> Iterator[tuple[Try, str]]:
    for protocol, _ in SERVICES:
        yield Try(who, address, port, protocol), right


# What passes, and what does not.


@pytest.mark.usefixtures("br_netfilter")
def test_published_port_leads_to_the_container_from_everywhere(host: OnHost, net: Network) -> None:
    """From outside, from the host by each of its addresses, from the same network, from another, from itself."""
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            target = at(version, "host")
            yield from to_port("outside", target, 8000, f"front-a {at(version, 'outside')}")
            yield from to_port("host", target, 8000, f"front-a {target}")
            inner = gateway(version, "front")
            yield from to_port("host", inner, 8000, f"front-a {inner}")
            yield from to_port("front-b", target, 8000, f"front-a {inner}")
            yield from to_port("front-b", inner, 8000, f"front-a {inner}")
            yield from to_port("front-a", target, 8000, f"front-a {inner}")
            yield from to_port("open-a", target, 8000, f"front-a {at(version, 'open-a')}")
            yield from to_port("outside", target, 8999, "")
            yield from to_port("host", target, 8999, "")
        yield from to_port("host", "127.0.0.1", 8000, f"front-a {gateway(4, 'front')}")
        yield from to_port("host", "::1", 8000, "")

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_port_published_on_one_address_is_reached_by_that_alone(host: OnHost, net: Network) -> None:
    """Also of a network whose containers do not reach each other otherwise."""
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            target, inner = at(version, "host"), gateway(version, "back")
            yield from to_port("outside", target, 8001, f"back-a {at(version, 'outside')}")
            yield from to_port("host", target, 8001, f"back-a {target}")
            yield from to_port("back-b", target, 8001, f"back-a {inner}")
            yield from to_port("back-a", target, 8001, f"back-a {inner}")
            yield from to_port("host", inner, 8001, "")
            yield from to_port("back-b", inner, 8001, "")
        yield from to_port("host", "127.0.0.1", 8001, "")

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_port_published_on_loopback_is_reached_from_the_host_alone(host: OnHost, net: Network) -> None:
    loopback = [Publication("tcp", "127.0.0.1", 8002, at(4, "front-a"), 80, "a", "front")]
    host.apply(Firewall((FRONT, BACK), tuple(loopback)))
    expect(
        net,
        [
            (Try("host", "127.0.0.1", 8002), f"front-a {gateway(4, 'front')}"),
            (Try("outside", at(4, "host"), 8002), ""),
            (Try("host", at(4, "host"), 8002), ""),
            (Try("front-b", "127.0.0.1", 8002), ""),
        ],
    )


@pytest.mark.usefixtures("br_netfilter")
def test_containers_do_not_reach_the_loopback_of_the_host(host: OnHost, net: Network) -> None:
    """route_localnet alone would let them in."""
    front = net["front-b"]
    front.sysctl("ipv4/conf/all/route_localnet", "1")
    front.call(
        lambda: ip(
            "route add 127.0.0.9/32 via 10.88.1.1 dev eth0 src 10.88.1.11",
            "rule add pref 1 to 127.0.0.9 lookup main",
        )
    )
    front.call(lambda: ip("rule del pref 0", "rule add pref 2 lookup local"))
    try:
        expect(net, [(Try("front-b", "127.0.0.9", 22), f"host {at(4, 'front-b')}")])
        host.apply()
        expect(net, to_port("front-b", "127.0.0.9", 22, ""))
        expect(net, to_port("front-b", "127.0.0.9", 8000, ""))
    finally:
        front.call(lambda: ip("route del 127.0.0.9/32", "rule add pref 0 lookup local", "rule del pref 1"))
        front.call(lambda: ip("rule del pref 2"))


@pytest.mark.usefixtures("br_netfilter")
def test_published_port_takes_nothing_that_is_for_others(host: OnHost, net: Network) -> None:
    """The same port of another machine; an address that is published on and is not the host's now."""
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            seen = at(version, "host")
            for who in ("front-a", "front-b", "host"):
                yield from to_port(who, at(version, "outside"), 8000, f"outside {seen}")
                yield from to_port(who, at(version, "nowhere"), 8003, f"outside {seen}")

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_source_is_hidden_where_it_leaves_a_network_with_nat_and_only_there(
    host: OnHost, net: Network
) -> None:
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            target = at(version, "outside")
            yield from to_port("front-a", target, 8000, f"outside {at(version, 'host')}")
            yield from to_port("open-a", target, 8000, f"outside {at(version, 'open-a')}")
            yield from to_service("front-b", version, "front-a", f"front-a {at(version, 'front-b')}")
            yield from to_service("back-a", version, "open-a", f"open-a {gateway(version, 'open')}")
            inner = gateway(version, "front")
            yield from to_port("front-a", inner, 22, f"host {at(version, 'front-a')}")
            for protocol, _ in SERVICES:
                yield Try("host", gateway(version, "back"), 22, protocol, source=inner), f"host {inner}"

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_networks_are_closed_to_each_other_but_for_what_is_allowed(host: OnHost, net: Network) -> None:
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            yield from to_service("front-a", version, "back-a", f"back-a {gateway(version, 'back')}")
            yield from to_service("front-a", version, "back-b", "")
            yield from to_service("front-b", version, "back-a", "")
            yield from to_service("back-a", version, "front-a", "")
            yield from to_service("front-a", version, "open-a", "")
            yield from to_service("open-a", version, "front-a", "")
            yield Try("front-a", at(version, "back-a"), 53, TCP), ""
            yield Try("front-a", at(version, "back-a"), 80, UDP), ""
            yield Try("back-b", at(version, "open-a"), 53, TCP), f"open-a {gateway(version, 'open')}"

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_bridge_that_nobody_told_of_is_closed(host: OnHost, net: Network) -> None:
    """Between networks and from outside; it is there before the ruleset is."""
    expect(net, to_service("front-a", 4, "late-a", f"late-a {at(4, 'front-a')}"))
    for firewall in (ALL, Firewall()):
        host.apply(firewall)
        tries = [
            one
            for version in (4, 6)
            for who, whom in (("front-a", "late-a"), ("late-a", "front-a"), ("outside", "late-a"))
            for one in to_service(who, version, whom, "")
        ]
        expect(net, tries)


@pytest.mark.usefixtures("br_netfilter")
def test_nothing_comes_into_a_network_with_nat_from_outside(host: OnHost, net: Network) -> None:
    host.apply()

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            yield from to_service("outside", version, "front-a", "")
            yield from to_service("outside", version, "back-a", "")
            yield from to_service("outside", version, "open-a", f"open-a {at(version, 'outside')}")

    expect(net, tries())


@pytest.mark.usefixtures("br_netfilter")
def test_network_that_denies_lets_through_only_what_is_allowed(host: OnHost, net: Network) -> None:
    """And the host's own address on it, and everything on networks that allow."""
    host.apply()
    for name in ("back-a", "back-b", "back-c"):
        net[name].call(lambda: ip("neigh flush all"))

    def tries() -> Iterator[tuple[Try, str]]:
        for version in (4, 6):
            yield from to_service("back-c", version, "back-a", f"back-a {at(version, 'back-c')}")
            yield from to_service("back-b", version, "back-a", "")
            yield from to_service("back-a", version, "back-c", "")
            yield from to_service("back-c", version, "back-b", "")
            yield Try("back-c", at(version, "back-a"), 53, TCP), ""
            yield Try("back-c", at(version, "back-a"), 80, UDP), ""
            yield Try("back-c", at(version, "back-a"), 53, UDP, size=4000), f"back-a {at(version, 'back-c')}"
            yield Try("back-b", at(version, "back-a"), 53, UDP, size=4000), ""
            yield from to_port("back-b", gateway(version, "back"), 22, f"host {at(version, 'back-b')}")
            yield from to_service("front-a", version, "front-b", f"front-b {at(version, 'front-a')}")

    expect(net, tries())


def link_local(net: Network, name: str) -> str:
    words = ["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"]
    said = net[name].call(
        lambda: subprocess.run(words, capture_output=True, text=True, check=True, timeout=5)
    )
    found = next(each for each in json.loads(said.stdout)[0]["addr_info"] if "local" in each)
    return f"{found['local']}%eth0"


@pytest.mark.usefixtures("br_netfilter")
def test_link_local_addresses_are_no_way_around_a_denial(host: OnHost, net: Network) -> None:
    target, source = link_local(net, "back-a"), link_local(net, "back-b")
    tries = [Try("back-b", target, port, protocol, source=source) for protocol, port in SERVICES]
    assert all(net.answers(tries))
    host.apply()
    assert net.answers(tries) == ["", ""]


@pytest.mark.usefixtures("br_netfilter")
def test_the_way_through_the_gateway_is_none_around_a_denial(host: OnHost, net: Network) -> None:
    """Routed by the host back onto the same bridge."""
    routes = [f"route add {at(version, 'back-a')} via {gateway(version, 'back')}" for version in (4, 6)]
    net["back-b"].call(lambda: ip(*routes))
    try:
        host.apply()
        expect(net, [one for version in (4, 6) for one in to_service("back-b", version, "back-a", "")])
    finally:
        net["back-b"].call(lambda: ip(*(each.replace("add", "del") for each in routes)))


@pytest.mark.usefixtures("br_netfilter")
def test_source_port_of_an_answer_opens_no_connection(host: OnHost, net: Network) -> None:
    host.apply()

    def connect(version: int) -> int:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            asking.bind((at(version, "back-a"), 81))
            asking.settimeout(0.3)
            return asking.connect_ex((at(version, "back-c"), 80))

    allowed = replace(WEB, ports=(Ports("tcp", 80, 81),))
    host.apply(Firewall((FRONT, BACK), (), (allowed,)))
    assert all(net["back-a"].call(lambda version=version: connect(version)) != 0 for version in (4, 6))


@pytest.mark.usefixtures("br_netfilter")
def test_errors_come_back_and_pings_need_an_allowance_of_everything(host: OnHost, net: Network) -> None:
    everything = Allowance("back/all", "back", both("back-b"), both("back-c"))
    host.apply(Firewall((FRONT, BACK), (), (WEB, everything)))
    for version in (4, 6):
        assert net["back-c"].call(lambda version=version: _refused(at(version, "back-a"), 54))
        assert not net["back-b"].call(lambda version=version: _refused(at(version, "back-a"), 54))
        assert net["back-b"].call(lambda version=version: _ping(version, at(version, "back-c")))
        assert not net["back-c"].call(lambda version=version: _ping(version, at(version, "back-b")))
        assert not net["back-c"].call(lambda version=version: _ping(version, at(version, "back-a")))


def _refused(address: str, port: int) -> bool:
    """Whether somebody says that nobody is there."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.3)
        asking.connect((address, port))
        try:
            asking.send(b"?")
            asking.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return False


def _ping(version: int, address: str) -> bool:
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    question, answer = (b"\x08\x00\xf7\xff", 0) if version == 4 else (b"\x80\x00\x00\x00", 129)
    with socket.socket(family, socket.SOCK_RAW, protocol) as asking:
        asking.connect((address, 0))
        asking.send(question + b"\0\0\0\0")
        end = time.monotonic() + 0.3
        while (left := end - time.monotonic()) > 0:
            asking.settimeout(left)
            try:
                said = asking.recv(200)
            except TimeoutError:
                return False
            if said[20 if version == 4 else 0] == answer:
                return True
    return False


def test_frames_of_other_peoples_bridges_pass(host: OnHost, net: Network) -> None:
    """Even if they use the same addresses as a network that denies."""
    for each in ("iptables", "ip6tables"):
        net["host"].sysctl(f"bridge/bridge-nf-call-{each}", "0")
    host.apply()
    with _others(net):
        expect(net, [(Try("other-a", "10.88.2.51", 80), "other-b 10.88.2.50")])


class _others:  # noqa: N801
    """Two places on somebody else's bridge."""

    def __init__(self, net: Network) -> None:
        self._net = net

    def __enter__(self) -> None:
        self._net["host"].call(lambda: ip("link add other type bridge", "link set other up"))
        for number, name in ((50, "other-a"), (51, "other-b")):
            place = self._net.places.get(name) or self._net.add(name)
            veth = f"link add {name} type veth peer name eth0 netns {place.path}"
            self._net["host"].call(lambda name=name, veth=veth: ip(veth, f"link set {name} master other up"))
            place.call(lambda number=number: ip(f"addr add 10.88.2.{number}/24 dev eth0", "link set eth0 up"))
        self._net.servers.listen(self._net["other-b"], 80)

    def __exit__(self, *_: object) -> None:
        self._net["host"].call(lambda: ip("link del other", "link del other-a", "link del other-b"))


@pytest.mark.usefixtures("br_netfilter")
def test_somebody_with_an_address_of_another_network_is_allowed_nothing(host: OnHost, net: Network) -> None:
    forged = at(4, "back-b")
    net["front-b"].call(lambda: ip(f"addr add {forged}/32 dev eth0"))
    try:
        host.apply()
        expect(net, [(Try("front-b", at(4, "open-a"), 53, UDP, source=forged), "")])
        assert host.counters()["open/any"] == 0
    finally:
        net["front-b"].call(lambda: ip(f"addr del {forged}/32 dev eth0"))


@pytest.mark.usefixtures("br_netfilter")
def test_each_allowance_counts_the_connections_that_it_let_through(host: OnHost, net: Network) -> None:
    """Between networks and within one, once each; applying again keeps the values, a new allowance begins at 0."""
    host.apply()
    assert host.counters() == {"back/web": 0, "open/any": 0}
    for version in (4, 6):
        expect(net, to_service("front-a", version, "back-a", f"back-a {gateway(version, 'back')}"))
        expect(net, to_service("back-c", version, "back-a", f"back-a {at(version, 'back-c')}"))
        expect(net, to_service("back-b", version, "open-a", f"open-a {gateway(version, 'open')}"))
    assert host.counters() == {"back/web": 8, "open/any": 4}
    host.apply()
    assert host.counters() == {"back/web": 8, "open/any": 4}
    host.apply(replace(ALL, allowances=(WEB, replace(ANY, name="open/ny_um ü"))))
    assert host.counters() == {"back/web": 8, "open/ny_um ü": 0}


@pytest.mark.usefixtures("br_netfilter")
def test_change_of_mind_takes_effect_at_once(host: OnHost, net: Network) -> None:
    """Wider, narrower and wider again: sets of ranges that overlap those before them."""
    narrow = replace(ANY, sources=both("back-a"))
    other = Firewall((FRONT, replace(BACK, within="allow"), replace(OPEN, nat=True)), (), (narrow,))
    for firewall, may in ((ALL, True), (other, False), (ALL, True)):
        host.apply(firewall)
        assert host.state(firewall) == ""
        for version in (4, 6):
            seen = f"open-a {gateway(version, 'open')}" if may else ""
            expect(net, to_service("back-b", version, "open-a", seen))
            expect(
                net, to_service("back-b", version, "back-a", "" if may else f"back-a {at(version, 'back-b')}")
            )
            expect(
                net,
                to_service("outside", version, "open-a", f"open-a {at(version, 'outside')}" if may else ""),
            )
            expect(
                net,
                to_port(
                    "outside", at(version, "host"), 8000, f"front-a {at(version, 'outside')}" if may else ""
                ),
            )


def test_established_connection_outlives_the_allowance(host: OnHost, net: Network) -> None:
    host.apply()
    server = net["back-a"].call(lambda: socket.create_server((at(4, "back-a"), 60)))
    host.apply(replace(ALL, allowances=(replace(WEB, ports=()),)))
    client = net["front-a"].call(lambda: socket.create_connection(server.getsockname(), 2))
    accepted, _ = server.accept()
    with server, client, accepted:
        host.apply(replace(ALL, allowances=()))
        client.send(b"still here")
        accepted.settimeout(2)
        assert accepted.recv(20) == b"still here"


# What is there, and what has changed.


FOREIGN = """
table inet foreign { counter c { packets 5 bytes 50; }
    set s { type ipv4_addr; elements = { 192.0.2.77 }; }
    chain forward { type filter hook forward priority 0; policy accept; ip saddr @s counter name c drop; }
}
table ip masu_test { chain mine { tcp dport 1 drop; }; }
table inet masu_test2 { chain forward { type filter hook forward priority 0; policy accept; }; }
"""

DRIFTS = {
    "rule deleted": (
        "delete rule inet masu_test forward handle {forward}",
        "chain forward: 1 rule is missing",
    ),
    "rule added": ("add rule inet masu_test forward accept", "chain forward: 1 rule is too many"),
    "rule put before": ("insert rule inet masu_test closed accept", "chain closed: 1 rule is too many"),
    "rule replaced": (
        'replace rule inet masu_test forward handle {forward} accept comment "answers"',
        "chain forward: 1 rule is changed",
    ),
    "element deleted": (
        "delete element inet masu_test together {{ mbtest-front . mbtest-front }}",
        "set together: 1 ",
    ),
    "element added": (
        "add element inet masu_test routed {{ mbtest-back }}",
        "set routed: 1 element is too many",
    ),
    "mapping deleted": (
        "delete element inet masu_test general4-address {{ tcp . 8000 }}",
        "map general4-address: 1 ",
    ),
    "chain flushed": ("flush chain inet masu_test forward", "chain forward: 5 rules are missing"),
    "chain of the bridges flushed": ("flush chain bridge masu_test closed", "bridge chain closed: "),
    "set flushed": ("flush set inet masu_test homes4", "set homes4: 3 elements are missing"),
    "chain added": (
        "add chain inet masu_test mine {{ type filter hook input priority 0; policy drop; }}",
        "chain mine",
    ),
    "set added": ("add set inet masu_test mine {{ type ipv4_addr; }}", "set mine is nobody's"),
    "counter deleted": (
        "flush chain inet masu_test closed; delete counter inet masu_test allow/back/web",
        "counter allow/back/web is missing",
    ),
    "policy changed": (
        "add chain inet masu_test forward {{ policy drop; }}",
        "chain forward is of another sort",
    ),
    "table asleep": ("add table inet masu_test {{ flags dormant; }}", "table masu_test is of another sort"),
    "table of the bridges deleted": ("delete table bridge masu_test", "bridge table masu_test is missing"),
    "table deleted": ("delete table inet masu_test", "table masu_test is missing"),
    "both tables deleted": ("delete table inet masu_test; delete table bridge masu_test", "missing"),
    "everything flushed": ("flush ruleset", "missing"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_seen_said_and_repaired(host: OnHost, drift: str) -> None:
    host.nft(FOREIGN)
    host.apply()
    rules = [
        each["rule"] for each in host.listing("-j", "list", "table", "inet", "masu_test") if "rule" in each
    ]
    first = next(each["handle"] for each in rules if each["chain"] == "forward")
    foreign = others(host)
    words, said = DRIFTS[drift]
    host.nft(
        words.format(forward=first).replace("; ", "\n", 1)
        if "; delete" in words
        else words.format(forward=first)
    )
    for driver in (host.driver, host.another()):
        found = host.call(lambda driver=driver: driver.state(ALL))
        assert found
        assert said in found
    host.apply()
    assert host.state() == ""
    assert host.call(lambda: host.another().state(ALL)) == ""
    assert others(host) == ([] if drift == "everything flushed" else foreign)


def others(host: OnHost) -> list[Any]:
    """Everything that is not ours."""
    ours = {("inet", "masu_test"), ("bridge", "masu_test")}
    return [
        each
        for each in host.listing()
        for kind, body in each.items()
        if (body["family"], body.get("table") or (body["name"] if kind == "table" else "")) not in ours
    ]


def test_applying_and_removing_touches_nothing_of_others(host: OnHost) -> None:
    host.nft(FOREIGN)
    before = others(host)
    assert before
    assert host.call(host.driver.present) is False
    host.apply()
    assert host.call(host.driver.present) is True
    host.apply(Firewall((FRONT,)))
    host.call(host.driver.remove)
    assert host.call(host.driver.present) is False
    assert host.state() is None
    assert not host.baseline.exists()
    assert host.listing() == before
    host.call(host.driver.remove)


def test_applying_twice_changes_nothing(host: OnHost) -> None:
    host.apply()
    before = _without_handles(host.listing())
    host.apply()
    assert _without_handles(host.listing()) == before


def _without_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_handles(each) for key, each in value.items() if key != "handle"}
    return [_without_handles(each) for each in value] if isinstance(value, list) else value


def test_table_of_the_bridges_goes_when_nobody_denies(host: OnHost) -> None:
    host.apply()
    host.apply(Firewall((FRONT, OPEN)))
    assert {body["family"] for each in host.listing() for body in each.values()} == {"inet"}


def test_whatever_is_in_our_tables_gives_way(host: OnHost) -> None:
    """Objects of our names and of other sorts, which the kernel does not change in place."""
    host.nft(
        """table inet masu_test {
            set homes4 { type ipv4_addr; }
            map together { type ipv4_addr : verdict; elements = { 192.0.2.3 : jump mine }; }
            chain mine { ip saddr @homes4 drop; }
            chain closed { type filter hook input priority 7; policy accept; ip saddr vmap @together; }
            chain forward { jump mine; }
            counter mine { }
            quota mine { over 5 bytes }
            limit mine { rate 5/second }
        }"""
    )
    host.apply()
    assert host.state() == ""


def test_another_process_trusts_what_was_written_down(host: OnHost) -> None:
    host.apply()
    script = (
        "import sys\n"
        "from tests.integration.test_nftables import ALL, SCOPE\n"
        "from controller.host.nftables import NftablesFirewall\n"
        "print(repr(NftablesFirewall(SCOPE, sys.argv[1]).state(ALL)))"
    )
    command = [sys.executable, "-c", script, str(host.baseline)]
    root = Path(__file__).parents[2]
    done = host.call(
        lambda: subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=30, check=True)
    )
    assert done.stdout.strip() == "''"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"digest": 1}', "tampered"])
def test_what_was_written_down_is_not_trusted_when_it_is_damaged(host: OnHost, text: str | None) -> None:
    host.apply()
    written = host.baseline.read_text()
    if text is None:
        host.baseline.unlink()
    else:
        host.baseline.write_text(
            written.replace("from outside", "from inside") if text == "tampered" else text
        )
    found = host.call(lambda: host.another().state(ALL))
    assert found == NEVER_APPLIED
    host.apply()
    assert host.call(lambda: host.another().state(ALL)) == ""


def test_other_wishes_are_seen_as_a_difference(host: OnHost) -> None:
    host.apply()
    assert "exact4-address: 4 elements are too many" in (host.state(replace(ALL, publications=())) or "")
    wider = replace(ALL, allowances=(replace(WEB, ports=(Ports("tcp", 80, 81), Ports("udp", 53, 60))), ANY))
    assert host.state(wider) == NEVER_APPLIED


def test_looking_again_needs_no_process_while_nothing_changes(
    host: OnHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.apply()
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.state() == ""
    assert host.state(replace(ALL)) == ""
    monkeypatch.setenv("PATH", path)
    host.nft("add table inet foreign")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostLacks, match="nft is not installed"):
        host.state()
    monkeypatch.setenv("PATH", path)
    assert host.state() == ""


def test_generation_changes_with_every_change_and_with_nothing_else(host: OnHost) -> None:
    generations = [host.call(host.driver.generation)]
    host.apply()
    generations.append(host.call(host.driver.generation))
    host.nft("add table inet foreign")
    generations.append(host.call(host.driver.generation))
    assert None not in generations
    assert len(set(generations)) == 3
    host.state()
    host.call(lambda: host.another().state(ALL))
    host.call(host.driver.counters)
    host.call(host.driver.present)
    assert host.call(host.driver.generation) == generations[-1]


# What goes wrong.


@pytest.fixture
def fake_nft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts a script of that name before the real one, which it may call as $NFT."""
    import shutil

    real, directory = shutil.which("nft"), tmp_path / "bin"

    def put(script: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "nft").write_text(f"#!/bin/sh\nNFT={real}\n{script}\n")
        (directory / "nft").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    return put


@pytest.mark.parametrize(
    ("what", "lacking"),
    [
        ('"nat"', r"this kernel cannot do NAT \(nf_nat\)"),
        ('"ct"', r"this kernel cannot track connections \(nf_conntrack\)"),
        ('"masquerade"', r"this kernel cannot masquerade \(nft_masq\)"),
        ('"fib"', r"this kernel cannot tell its own addresses \(nft_fib_inet\)"),
    ],
)
def test_what_the_kernel_lacks_is_said(
    host: OnHost, fake_nft: Callable[[str], None], what: str, lacking: str
) -> None:
    """A stand-in for a kernel that refuses: nft's own words for all of these are the same."""
    refusal = "internal:0:0-0: Error: Could not process rule: No such file or directory"
    fake_nft(f"""said=$(cat); case "$said" in *'{what}'*) echo '{refusal}' >&2; exit 1;; esac
        printf '%s' "$said" | $NFT "$@" """)
    with pytest.raises(HostLacks, match=lacking):
        host.apply()


def test_what_nft_complains_about_is_said_in_one_line(host: OnHost, fake_nft: Callable[[str], None]) -> None:
    fake_nft("""case "$*" in *-c*) exit 0;; esac
        printf 'x:1:1-3: Error: syntax error\\nadd x\\n    ^\\nx:2:1-1: Error: no good\\n' >&2; exit 1""")
    with pytest.raises(StepFailed, match=r"^nft: syntax error; no good$"):
        host.apply()


def test_nft_that_does_not_end_is_ended(
    host: OnHost, fake_nft: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nftables, "PATIENCE_S", 0.2)
    fake_nft("sleep 30 & wait")
    with pytest.raises(StepFailed, match=r"^nft: no answer in 0\.2 s$"):
        host.apply(Firewall())


def test_nft_that_does_nothing_is_found_out(host: OnHost, fake_nft: Callable[[str], None]) -> None:
    fake_nft("""case "$*" in *-f*) exit 0;; esac; exec $NFT "$@" """)
    with pytest.raises(NotReadBack, match="table masu_test is missing"):
        host.apply()


def test_transaction_that_fails_changes_nothing(host: OnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    before = host.listing()
    wrong = replace(ALL, allowances=(replace(WEB, name="x" * 300),))
    with pytest.raises(StepFailed, match=r"^nft: "):
        host.apply(wrong)
    assert host.listing() == before
    assert host.state() == ""


# What is heard.


@pytest.fixture
def events(host: OnHost) -> Iterator[int]:
    descriptor = host.call(host.driver.subscribe)
    yield descriptor
    os.close(descriptor)


def test_what_others_do_to_our_tables_is_heard(host: OnHost, events: int) -> None:
    host.apply()
    host.driver.drain(events)
    for words in (
        "add rule inet masu_test forward accept",
        "flush chain inet masu_test forward",
        "delete element inet masu_test together { mbtest-front . mbtest-front }",
        "add set bridge masu_test mine { type ipv4_addr; }",
        "add chain inet masu_test mine",
        "delete table bridge masu_test",
        "flush ruleset",
    ):
        assert host.driver.drain(events) is False
        host.nft(words)
        assert host.driver.drain(events) is True, words


def test_what_we_do_or_others_do_elsewhere_is_not_heard(host: OnHost, events: int) -> None:
    host.apply()
    host.apply(Firewall((FRONT,)))
    host.state()
    host.nft(FOREIGN)
    host.nft("delete table ip masu_test\nflush chain inet foreign forward")
    host.call(host.driver.remove)
    assert host.driver.drain(events) is False


def test_what_another_of_us_does_is_heard(host: OnHost, events: int) -> None:
    host.call(lambda: host.another().apply(ALL))
    assert host.driver.drain(events) is True


def test_what_could_not_be_heard_counts_as_a_change(host: OnHost, events: int) -> None:
    with socket.socket(fileno=os.dup(events)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(8):
        host.nft(f"add table inet foreign{number}")
    assert host.driver.drain(events) is True
    assert host.driver.drain(events) is False


# What it costs.


def test_times_are_told(host: OnHost, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: nothing is judged by them."""
    small, large = world(3, 10, 10), world(20, 400, 400)
    lines = [f"{name}: {_times(host, firewall)}" for name, firewall in (("3/10", small), ("20/400", large))]
    with capsys.disabled():
        print("", *lines, sep="\n")


def world(networks: int, members: int, publications: int) -> Firewall:
    bridges = tuple(
        FilteredBridge(f"n{each}", f"mbtest-n{each}", (f"10.{each}.0.0/24", f"fd00:{each}::/64"), nat=True)
        for each in range(networks)
    )
    places = [(each % networks, 10 + each // networks) for each in range(members)]
    published = tuple(
        Publication("tcp", "", 8000 + each, f"10.{network}.0.{last}", 80, f"c{each}", f"n{network}")
        for each, (network, last) in ((each, places[each % members]) for each in range(publications))
    )
    allowances = tuple(
        Allowance(
            f"n{each}/web",
            f"n{each}",
            tuple(f"10.{network}.0.{last}" for network, last in places),
            (f"10.{each}.0.0/24",),
            (Ports("tcp", 80, 80),),
        )
        for each in range(2)
    )
    return Firewall((replace(bridges[0], within="deny"), *bridges[1:]), published, allowances)


def _times(host: OnHost, firewall: Firewall) -> str:
    host.apply(firewall)
    found = {
        "apply": _median_ms(host, lambda: host.driver.apply(firewall), 5),
        "state at once": _median_ms(host, lambda: host.driver.state(firewall), 51),
        "state in another process": _median_ms(host, lambda: host.another().state(firewall), 5),
        "generation": _median_ms(host, host.driver.generation, 51),
    }
    return ", ".join(f"{name} {took:.3f} ms" for name, took in found.items())


def _median_ms(host: OnHost, work: Callable[[], object], times: int) -> float:
    def measure() -> list[float]:
        took = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            took.append((time.perf_counter() - start) * 1000)
        return took

    return statistics.median(host.call(measure))
