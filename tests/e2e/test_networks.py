"""Networks: bridges, interfaces, addresses and routes of containers, in a network namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, NetworkedMasu, container, network, until

FRONT = network("front", subnets=["10.88.0.0/24", "fd88::/64"])


def on(*entries: dict[str, Any] | str, name: str = "web", **spec: Any) -> dict[str, Any]:
    """A container on these networks; a word stands for a network and nothing more."""
    written = [{"network": each} if isinstance(each, str) else each for each in entries]
    return container(name, networks=written, **spec)


def addresses(masu: NetworkedMasu, name: str = "web", interface: str = "eth0") -> set[str]:
    """Of the kernel, without link-local ones."""
    return {
        f"{each['local']}/{each['prefixlen']}"
        for link in masu.ip_json(name, "addr")
        for each in link["addr_info"]
        if link["ifname"] == interface and each["scope"] == "global"
    }


@pytest.mark.on_v2_long
def test_a_container_on_a_bridge_is_reached_by_its_address_from_host_and_neighbour(
    networked: NetworkedMasu,
) -> None:
    site = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
    networked.write(
        FRONT,
        on({"network": "front", "addresses": ["10.88.0.10", "fd88::10/64"]}, process=site),
        on("front", name="near"),
    )
    assert networked.apply().returncode == 0
    assert addresses(networked) == {"10.88.0.10/24", "fd88::10/64"}
    for address in ("10.88.0.10", "fd88::10"):
        assert networked.fetch("", address, 80) == "200"
        assert networked.fetch("near", address, 80) == "200"
    assert networked.status()["addresses"] == ["10.88.0.10", "fd88::10"]
    assert networked.networks()["front"]["containers"]["web"] == ["10.88.0.10", "fd88::10"]
    assert networked.plan()["changes"] == []


@pytest.mark.on_v2_long
def test_addresses_survive_a_restart_and_are_given_back_with_the_container(networked: NetworkedMasu) -> None:
    networked.write(FRONT, on("front", name="a"), on("front", name="b"))
    networked.start()
    networked.running("b")
    before = {name: addresses(networked, name) for name in ("a", "b")}
    assert before["a"] == {"10.88.0.2/24", "fd88::2/64"}
    os.kill(networked.pid("b"), 9)
    networked.restarted(networked.pid("b"), "b")
    assert addresses(networked, "b") == before["b"]
    networked.write(FRONT, on("front", name="b"), on("front", name="c"))
    networked.running("c")
    assert addresses(networked, "b") == before["b"], "whoever has an address keeps it"
    until(lambda: not networked.traces("a"), "a is gone")
    networked.write(FRONT, on("front", name="b"), on("front", name="c"), on("front", name="d"))
    networked.running("d")
    assert addresses(networked, "d") == before["a"], "and what was given back is given again"


@pytest.mark.on_v2_long
def test_everything_about_an_interface_changes_live(networked: NetworkedMasu) -> None:
    back = network("back", subnets=["10.89.0.0/24"])
    networked.write(FRONT, back, on({"network": "front", "addresses": ["10.88.0.10"]}))
    networked.start()
    pid = networked.running()
    networked.write(
        FRONT,
        back,
        on(
            {
                "network": "front",
                "interface": "lan0",
                "addresses": ["10.88.0.11", "10.88.0.12"],
                "mac": "02:00:00:00:00:42",
                "mtu": 1400,
                "routes": [{"to": "10.9.0.0/16", "via": "10.88.0.7", "metric": 7}],
                "sysctls": {"ipv4.rp_filter": "2"},
            },
            "back",
        ),
    )
    until(lambda: networked.status()["converged"] and networked.plan()["changes"] == [], networked.log)
    assert networked.pid() == pid, "nothing was restarted"
    (link,) = networked.ip_json("web", "link", "show", "lan0")
    assert (link["address"], link["mtu"]) == ("02:00:00:00:00:42", 1400)
    assert addresses(networked, interface="lan0") == {"10.88.0.11/24", "10.88.0.12/24"}
    assert addresses(networked, interface="eth1") == {"10.89.0.2/24"}
    routes = networked.ip_json("web", "route")
    assert {"dst": "10.9.0.0/16", "gateway": "10.88.0.7", "dev": "lan0", "metric": 7}.items() <= next(
        each for each in routes if each["dst"] == "10.9.0.0/16"
    ).items()
    assert networked.inside("web", "cat", "/proc/sys/net/ipv4/conf/lan0/rp_filter").strip() == "2"
    networked.write(FRONT, back, on({"network": "front", "addresses": ["10.88.0.10"]}))
    until(lambda: networked.status()["converged"] and networked.plan()["changes"] == [], networked.log)
    assert [each["ifname"] for each in networked.ip_json("web", "link")] == ["lo", "eth0"]
    assert networked.pid() == pid


@pytest.mark.on_v2_long
def test_a_network_is_kept_while_somebody_uses_it_and_goes_with_the_last(networked: NetworkedMasu) -> None:
    networked.write(FRONT, file="front.yaml")
    networked.write(on("front"))
    networked.start()
    networked.running()
    (networked.source / "front.yaml").unlink()
    until(lambda: "uses network" in networked.log(), networked.log)
    assert networked.networks()["front"]["converged"]
    (rejected,) = networked.rejected()
    assert '"web" uses network' in rejected["message"]
    networked.write(container())
    until(lambda: not networked.networks(), networked.log)
    until(lambda: not networked.links(), lambda: str(networked.links()))
    assert networked.rejected() == []


@pytest.mark.on_v2_long
def test_what_others_have_on_the_same_bridge_stays(networked: NetworkedMasu) -> None:
    networked.write(FRONT, on("front"))
    assert networked.apply().returncode == 0
    bridge = networked.networks()["front"]["link"]
    networked.ip("addr", "add", "192.0.2.1/24", "dev", bridge)
    networked.ip("link", "add", "foreign", "type", "veth", "peer", "name", "foreign2")
    networked.ip("link", "set", "foreign", "master", bridge)
    networked.inside("web", "ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    networked.inside("web", "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
    assert networked.plan()["changes"] == []
    networked.write(network("front", subnets=["10.77.0.0/24"]), on("front"))
    assert networked.apply().returncode == 0
    assert addresses(networked) == {"10.77.0.2/24", "192.0.2.2/24"}
    (seen,) = networked.ip_json("", "addr", "show", bridge)
    assert {"10.77.0.1", "192.0.2.1"} <= {each["local"] for each in seen["addr_info"]}
    assert "10.88.0.1" not in {each["local"] for each in seen["addr_info"]}
    (link,) = networked.ip_json("", "link", "show", "foreign")
    assert link["master"] == bridge
    assert "198.51.100.0/24" in networked.inside("web", "ip", "route")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_user_namespace_has_low_ports_and_its_own_interfaces(
    networked: NetworkedMasu, runtime: str
) -> None:
    networked.runtime = runtime
    site = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
    networked.write(
        FRONT,
        on({"network": "front", "addresses": ["10.88.0.10"]}, process=site, namespaces={"user": "auto"}),
    )
    assert networked.apply().returncode == 0
    until(lambda: networked.fetch("", "10.88.0.10", 80) == "200", "root inside listens on port 80")
    shown = networked.run("exec", "web", "--", "ls", "/sys/class/net").stdout.split()
    assert shown == ["eth0", "lo"], "and /sys shows its own interfaces"


BAD = {
    "overlap": ([FRONT, network("back", subnets=["10.88.0.128/25"])], 'overlaps with network "front"'),
    "outside": ([FRONT, on({"network": "front", "addresses": ["10.99.0.1"]})], "not of network"),
    "gateway": ([FRONT, on({"network": "front", "addresses": ["10.88.0.1"]})], "is the gateway"),
    "mac": ([FRONT, on({"network": "front", "mac": "02:00:00:00:00"})], "is not a MAC address"),
    "long": ([FRONT, on({"network": "front", "interface": "sixteen-letters-"})], "at most 15"),
    "absent": ([on("nowhere")], "which no valid file defines"),
    "prefix": ([FRONT, on({"network": "front", "addresses": ["10.88.0.9/16"]})], "not of network"),
    "parent": ([network("m", type="macvlan")], "a macvlan needs parent"),
    "host bits": ([network("m", subnets=["10.1.2.3/24"])], "do you mean 10.1.2.0/24?"),
    "twice": (
        [FRONT, *(on({"network": "front", "addresses": ["10.88.0.9"]}, name=each) for each in ("a", "b"))],
        "the address 10.88.0.9, which is container",
    ),
    "port": (
        [FRONT, *(on("front", name=each, ports=["8080:80"]) for each in ("a", "b"))],
        "publishes 8080/tcp",
    ),
    "no net": ([FRONT, on("front", namespaces={"net": "host"})], "need a private net namespace"),
    "min": (
        [FRONT, on({"network": "front", "egress": {"min": "1Mbit"}})],
        'a part of network "front", which has no egress.max',
    ),
    "rate": ([FRONT, on({"network": "front", "egress": {"max": "100M"}})], "use 100Mbit"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_the_spec_alone_shows_to_be_wrong_is_said_with_its_place(
    networked: NetworkedMasu, case: str
) -> None:
    documents, words = BAD[case]
    path = networked.write(*documents)
    done = networked.run("validate", str(networked.source))
    assert done.returncode == 3
    assert words in done.stdout
    assert done.stdout.startswith(f"{path}:")
    assert not done.stdout.startswith(f"{path}:0:")


@pytest.mark.on_v2_long
def test_containers_of_a_network_know_each_other_by_name(networked: NetworkedMasu) -> None:
    """Also when one comes later: the files are kept current in place."""
    networked.write(FRONT, on("front", hosts={"mail.example.org": "192.0.2.10"}, hostname="site"))
    networked.start()
    pid = networked.running()

    def hosts() -> dict[str, str]:
        lines = networked.run("exec", "web", "--", "cat", "/etc/hosts").stdout.splitlines()
        return {
            name: line.split()[0]
            for line in lines
            for name in line.split()[1:]
            if "::" not in line.split()[0]
        }

    assert hosts() == {
        "localhost": "127.0.0.1",
        "mail.example.org": "192.0.2.10",
        "web": "10.88.0.2",
        "site": "10.88.0.2",
    }
    assert networked.run("exec", "web", "--", "cat", "/etc/hostname").stdout == "site\n"
    site = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
    networked.write(
        FRONT,
        on("front", resolver={"servers": ["192.0.2.53"], "search": ["example.org"]}),
        on("front", name="near", process=site),
    )
    networked.running("near")
    until(lambda: hosts().get("near") == "10.88.0.3", "the newcomer is known")
    assert networked.pid() == pid
    assert networked.run("exec", "web", "--", "cat", "/etc/resolv.conf").stdout == (
        "nameserver 192.0.2.53\nsearch example.org\n"
    )
    fetched = networked.run("exec", "web", "--", "wget", "-q", "-O", "-", "http://near/hostname")
    assert fetched.stdout == "near\n", fetched


def test_a_network_that_comes_later_brings_the_files_of_names_too(networked: NetworkedMasu) -> None:
    networked.write(container())
    networked.start()
    pid = networked.running()
    networked.write(FRONT, on("front"))
    until(lambda: "web" in networked.run("exec", "web", "--", "cat", "/etc/hosts").stdout, networked.log)
    assert networked.pid() == pid
    assert networked.plan()["changes"] == []


MEDDLING = {
    "address": ["web:ip addr del 10.88.0.10/24 dev eth0"],
    "v6 address": ["web:ip addr del fd88::10/64 dev eth0"],
    "route": ["web:ip route del default"],
    "every route": ["web:ip route flush table main"],
    "every route of the bridge": [":ip route flush dev {bridge}"],
    "the way into a subnet": [":ip -6 route del fd88::/64 dev {bridge}"],
    "ipv6 off": ["web:busybox sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=1"],
    "ipv6 off on the bridge": [":busybox sysctl -q -w net.ipv6.conf.{bridge}.disable_ipv6=1"],
    "down": ["web:ip link set eth0 down"],
    "rename": ["web:ip link set eth0 name else0"],
    "mac": ["web:ip link set eth0 address 02:00:00:00:00:77"],
    "delete": ["web:ip link del eth0"],
    "host end down": [":ip link set {veth} down"],
    "host end renamed": [":ip link set {veth} name else1"],
    "host end deleted": [":ip link del {veth}"],
    "taken off the bridge": [":ip link set {veth} nomaster"],
    "gateway": [":ip addr del 10.88.0.1/24 dev {bridge}"],
    "bridge down": [":ip link set {bridge} down"],
    "bridge renamed": [":ip link set {bridge} name else2"],
    "bridge deleted": [":ip link del {bridge}"],
}


@pytest.mark.on_v2_long
@pytest.mark.parametrize("part", [0, 1, 2])
def test_whatever_somebody_changes_is_repaired(networked: NetworkedMasu, part: int) -> None:
    """By events alone: the resync comes every 30 s, and the test waits 10. Nothing is restarted.

    In parts, because whoever changes one thing too often is taken for somebody to fight with.
    """
    networked.write(FRONT, on({"network": "front", "addresses": ["10.88.0.10", "fd88::10"]}))
    networked.start()
    pid = networked.running()
    until(lambda: networked.plan()["changes"] == [], networked.log)
    before = _picture(networked)
    bridge = networked.networks()["front"]["link"]
    (veth,) = set(networked.links()) - {bridge}
    for what, commands in [*MEDDLING.items()][part::3]:
        for each in commands:
            where, _, command = each.format(bridge=bridge, veth=veth).partition(":")
            networked.inside(where, *command.split())
        until(
            lambda: _picture(networked) == before,
            lambda what=what: f"{what}: {before} {_picture(networked)}",
        )
        assert networked.pid() == pid, what
    until(lambda: networked.plan()["changes"] == [], networked.log)


def _picture(masu: NetworkedMasu) -> list[Any]:
    """Names, marks, addresses and routes, without numbers; empty while it cannot be read."""
    found: list[Any] = []
    for where in ("", "web"):
        for each in sorted(masu.ip_json(where, "addr"), key=lambda link: str(link["ifname"])):
            has = sorted(one["local"] for one in each["addr_info"] if one["scope"] == "global")
            end = [each["ifname"], each.get("ifalias"), each.get("master"), each["operstate"], has]
            found.append([*end, each["address"] if where else ""])
        for family in ("-4", "-6"):
            routes = masu.ip_json(where, family, "route")
            found.append(sorted(f"{each['dst']} {each.get('gateway')} {each['dev']}" for each in routes))
    return found


SITE = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
OUTSIDE = "192.0.2.9"


@pytest.fixture
def outside(networked: NetworkedMasu) -> Iterator[str]:
    """Another machine, as it were: its namespace is reached by the test's host over a veth. → its netns' name."""
    name = f"o{networked.host[1:]}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    networked.ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", name)
    for command in (
        "addr add 192.0.2.1/24 dev up0",
        "addr add 2001:db8::1/64 dev up0 nodad",
        "link set up0 up",
    ):
        networked.ip(*command.split())
    for command in (
        "addr add 192.0.2.9/24 dev eth0",
        "addr add 2001:db8::9/64 dev eth0 nodad",
        "link set eth0 up",
        "link set lo up",
        "route add 10.88.0.0/16 via 192.0.2.1",
        "-6 route add fd88::/16 via 2001:db8::1",
    ):
        subprocess.run(["ip", "-n", name, *command.split()], check=True, timeout=10)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


@pytest.mark.on_v2_long
def test_published_ports_lead_to_the_container_from_everywhere(
    networked: NetworkedMasu, outside: str
) -> None:
    networked.write(
        FRONT,
        network("back", subnets=["10.89.0.0/24", "fd89::/64"]),
        on(
            {"network": "front", "addresses": ["10.88.0.10", "fd88::10"]},
            process=SITE,
            ports=["8080:80", "192.0.2.1:81:80"],
        ),
        on("front", name="near"),
        on("back", name="far"),
    )
    networked.start()
    for name in ("web", "near", "far"):
        networked.running(name)
    for address in ("192.0.2.1", "127.0.0.1", "10.88.0.1", "2001:db8::1", "fd88::1"):
        assert networked.fetch("", address, 8080) == "200", f"from the host by {address}"
    for where in ("near", "far", "web"):
        for address in ("192.0.2.1", "2001:db8::1"):
            assert networked.fetch(where, address, 8080) == "200", f"from {where} by {address}"
    for address in ("192.0.2.1", "2001:db8::1"):
        assert networked.fetch(f"netns:{outside}", address, 8080) == "200", f"from outside by {address}"
    assert networked.fetch(f"netns:{outside}", "192.0.2.1", 81) == "200", "on one address"
    assert networked.fetch("", "127.0.0.1", 81) != "200", "and on no other"
    assert networked.fetch(f"netns:{outside}", "10.88.0.10", 80, 1) != "200", (
        "not reached behind the host's back"
    )
    pid = networked.pid()
    networked.write(
        FRONT, on({"network": "front", "addresses": ["10.88.0.10"]}, process=SITE, ports=["8081:80"])
    )
    until(lambda: networked.fetch("", "127.0.0.1", 8081) == "200", "the new port")
    assert networked.fetch("", "127.0.0.1", 8080, 1) != "200", "the old one is gone"
    assert networked.pid() == pid


def test_a_port_of_another_instance_stays_its_own(networked: NetworkedMasu, tmp_path: Path) -> None:
    """In either direction, and until it lets go of it."""
    place = tmp_path / "second"
    place.mkdir()
    second = Masu(place)
    second.prefix = networked.prefix  # type: ignore[method-assign]
    try:
        networked.write(FRONT, on("front", process=SITE, ports=["8080:80"]))
        assert networked.apply().returncode == 0
        back = network("back", subnets=["10.77.0.0/24"])
        second.write(back, on("back", process={"args": ["/bin/sleep", "1000"]}, ports=["8080:80", "8081:80"]))
        assert second.apply("--wait", "5s").returncode == 1
        (told,) = second.status()["conditions"]
        assert told["reason"] == "PortTaken"
        assert f"instance {networked.instance} publishes it" in told["message"]
        assert "PortTaken" in second.run("plan", str(second.source)).stdout
        until(lambda: networked.fetch("", "127.0.0.1", 8080) == "200", "whoever had it has it")
        assert networked.status()["ports"] == ["8080 → 80/tcp"]
        assert second.status()["ports"] == ["8081 → 80/tcp"]
        assert networked.plan()["changes"] == []
        networked.write(FRONT, on("front", process=SITE))
        assert networked.apply().returncode == 0
        assert second.apply().returncode == 0
    finally:
        second.close()


def test_an_address_that_somebody_has_is_not_taken_from_it(networked: NetworkedMasu) -> None:
    networked.write(FRONT, on("front"))
    networked.start()
    networked.running()
    had = networked.networks()["front"]["containers"]["web"]
    networked.write(on({"network": "front", "addresses": [had[0]]}, name="late"), file="late.yaml")
    until(lambda: "AddressTaken" in networked.log(), networked.log)
    assert networked.networks()["front"]["containers"]["web"] == had
    assert "AddressTaken" in networked.run("plan", str(networked.source)).stdout
    networked.write(FRONT, on({"network": "front", "addresses": ["10.88.0.99", had[1]]}))
    until(lambda: networked.status("late").get("converged"), networked.log)


def test_forwarding_that_is_turned_off_is_on_again_at_once(networked: NetworkedMasu) -> None:
    networked.write(FRONT, on("front"))
    networked.start()
    networked.running()
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        until(lambda key=key: networked.inside("", "busybox", "sysctl", "-n", key) == "1\n", key)
        networked.inside("", "busybox", "sysctl", "-q", "-w", f"{key}=0")
        until(lambda key=key: networked.inside("", "busybox", "sysctl", "-n", key) == "1\n", key)
    networked.inside("", "nft", "flush", "ruleset")
    until(lambda: [each for each in networked.events() if each.get("old") == "missing"], networked.log)
    assert "Repaired" in networked.log()


@pytest.mark.on_v2_long
def test_containers_reach_the_world_under_the_hosts_address(networked: NetworkedMasu, outside: str) -> None:
    networked.write(FRONT, on("front"))
    assert networked.apply().returncode == 0
    program = "import socket\n"
    program += (
        's=socket.create_server(("::",99),family=socket.AF_INET6,dualstack_ipv6=True);print(flush=True)\n'
    )
    program += "for _ in range(2): c,a=s.accept();c.sendall(a[0].encode());c.close()"
    argv = ["ip", "netns", "exec", outside, sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        try:
            seen = [
                networked.run("exec", "web", "--", "nc", "-w", "2", each, "99").stdout
                for each in (OUTSIDE, "2001:db8::9")
            ]
        finally:
            server.kill()
    assert seen == ["::ffff:192.0.2.1", "2001:db8::1"]


@pytest.mark.on_v2_long
def test_networks_are_apart_unless_a_rule_says_otherwise(networked: NetworkedMasu) -> None:
    rule = {"name": "db", "from": {"labels": {"app": "shop"}}, "to": {"container": "db"}, "ports": ["80"]}
    slip = {"name": "slip", "from": {"container": "shpo"}}
    policy = {"allow": [rule, slip], "within": "deny"}
    back = network("back", subnets=["10.89.0.0/24", "fd89::/64"], policy=policy)
    shop = on("front", name="shop")
    shop["metadata"]["labels"] = {"app": "shop"}
    two = {"args": ["/bin/sh", "-c", "httpd -p 81 -h /etc; exec httpd -f -p 80 -h /etc"]}
    networked.write(
        FRONT,
        back,
        shop,
        on("front", name="other"),
        on({"network": "back", "addresses": ["10.89.0.10", "fd89::10"]}, name="db", process=two),
        on("back", name="neighbour"),
    )
    networked.start()
    for name in ("shop", "other", "db", "neighbour"):
        networked.running(name)
    for address in ("10.89.0.10", "fd89::10"):
        assert networked.fetch("shop", address, 80) == "200", "what the rule allows"
        assert networked.fetch("shop", address, 81, 1) != "200", "that port and no other"
        assert networked.fetch("other", address, 80, 1) != "200", "whoever has no such label"
        assert networked.fetch("neighbour", address, 80, 1) != "200", "on the same network neither"
    counted, idle = networked.networks()["back"]["rules"]
    assert (counted["idle"], idle["idle"]) == (False, True)
    assert counted["name"] == "db"
    assert counted["packets"] >= 2
    pid = networked.pid("db")
    shop["metadata"]["labels"] = {}
    networked.write(
        FRONT,
        network("back", subnets=["10.89.0.0/24", "fd89::/64"]),
        shop,
        on("back", name="neighbour"),
        on({"network": "back", "addresses": ["10.89.0.10", "fd89::10"]}, name="db", process=two),
    )
    until(lambda: networked.fetch("neighbour", "10.89.0.10", 80, 1) == "200", "allowed within")
    assert networked.fetch("shop", "10.89.0.10", 80, 1) != "200"
    assert networked.pid("db") == pid


@pytest.mark.on_v2_long
def test_a_flushed_ruleset_is_repaired_and_others_tables_stay(networked: NetworkedMasu) -> None:
    networked.write(FRONT, on({"network": "front"}, process=SITE, ports=["8080:80"]))
    networked.start()
    networked.running()
    networked.inside(
        "", "nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter"
    )
    until(lambda: networked.plan()["changes"] == [], networked.log)
    table = f"masu_{networked.instance}"
    for command in (
        f"delete table inet {table}",
        f"flush chain inet {table} forward",
        f"flush table inet {table}",
    ):
        networked.inside("", "nft", command)
        until(
            lambda: networked.fetch("", "127.0.0.1", 8080, 1) == "200",
            f"{command}: {networked.log()[-2000:]}",
        )
        until(lambda: networked.plan()["changes"] == [], networked.log)
    assert "counter" in networked.inside("", "nft", "list table inet theirs")
    networked.write(container())
    until(lambda: table not in networked.inside("", "nft", "list tables"), networked.log)
    networked.inside("", "nft", "flush ruleset")


LAN = network("lan", type="macvlan", parent="nic0", subnets=["10.90.0.0/24"])


def waits_for(masu: NetworkedMasu, reason: str, name: str = "web") -> None:
    def reasons() -> list[str]:
        return [each["reason"] for each in masu.status(name).get("conditions", [])]

    until(lambda: reason in reasons(), lambda: f"{reason}: {reasons()}\n{masu.log()[-1500:]}")


@pytest.mark.on_v2_long
def test_containers_beside_the_host_on_its_own_link(networked: NetworkedMasu) -> None:
    """macvlan: waits for its parent, follows it to another one, and never asks for more than that takes."""
    site = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
    networked.write(
        LAN, on({"network": "lan", "addresses": ["10.90.0.10"]}, process=site), on("lan", name="near")
    )
    networked.start()
    waits_for(networked, "NoParent")
    plug(networked, "nic0", mtu=1400)
    networked.running()
    networked.running("near")
    until(lambda: networked.fetch("near", "10.90.0.10", 80) == "200", networked.log)
    pid = networked.pid()
    big = {"network": "lan", "addresses": ["10.90.0.10"], "mtu": 1500}
    networked.write(LAN, on(big, process=site), on("lan", name="near"))
    waits_for(networked, "MtuTooLarge")
    plug(networked, "nic1")
    networked.write(
        {**LAN, "spec": {**LAN["spec"], "parent": "nic1"}}, on(big, process=site), on("lan", name="near")
    )
    until(lambda: networked.plan()["changes"] == [], networked.log)
    until(lambda: networked.fetch("near", "10.90.0.10", 80) == "200", networked.log)
    assert networked.pid() == pid
    assert networked.ip_json("web", "link", "show", "eth0")[0]["mtu"] == 1500
    networked.ip("link", "del", "nic1")
    waits_for(networked, "NoParent")
    plug(networked, "nic1")
    until(lambda: networked.fetch("near", "10.90.0.10", 80) == "200", networked.log)


@pytest.mark.on_v2_long
def test_a_device_of_the_host_moves_in_and_is_given_back(networked: NetworkedMasu) -> None:
    plug(networked, "dev0")
    plug(networked, "dev1")
    direct = network("direct", type="hostDevice", device="dev0")
    entry = {"network": "direct", "interface": "lan0", "addresses": ["10.91.0.2/24"]}
    networked.write(direct, on(entry), container("beside"))
    networked.start()
    pid = networked.running()
    until(lambda: networked.plan()["changes"] == [], networked.log)
    mac = networked.ip_json("web", "link", "show", "lan0")[0]["address"]
    assert addresses(networked, interface="lan0") == {"10.91.0.2/24"}
    assert "dev0" not in _names(networked)
    os.kill(pid, 9)
    networked.restarted(pid)
    assert addresses(networked, interface="lan0") == {"10.91.0.2/24"}
    other = network("direct", type="hostDevice", device="dev1")
    networked.write(other, on(entry), container("beside"))
    until(lambda: "dev0" in _names(networked) and "dev1" not in _names(networked), networked.log)
    until(lambda: networked.plan()["changes"] == [], networked.log)
    back = networked.ip_json("", "link", "show", "dev0")[0]
    assert back["address"] == mac
    assert not back.get("ifalias")
    networked.write(container("beside"))
    until(lambda: not networked.traces("web"), "web is gone")
    assert {"dev0", "dev1"} <= _names(networked), "what masu destroyed with the namespace cannot come back"
    networked.write(network("direct", type="hostDevice", device="dev7"), on(entry), container("beside"))
    waits_for(networked, "NoDevice")


def test_a_device_comes_back_as_it_was_and_nothing_else_comes_with_it(networked: NetworkedMasu) -> None:
    """Whoever is root over the network inside may write masu's mark on a link of his own."""
    plug(networked, "dev0")
    was = networked.ip_json("", "link", "show", "dev0")[0]
    direct = network("direct", type="hostDevice", device="dev0", mtu=1400)
    networked.write(
        direct, FRONT, on("front", {"network": "direct", "mac": "02:00:00:00:00:33"}), container("beside")
    )
    networked.start()
    networked.running()
    until(lambda: "dev0" not in _names(networked), networked.log)
    forged = f"masu/{networked.instance}/container/web/front/uplink"
    networked.inside(
        "web", "ip", "link", "add", "mine", "alias", forged, "type", "veth", "peer", "name", "other"
    )
    networked.write(FRONT, on("front"), container("beside"))
    until(lambda: "dev0" in _names(networked), networked.log)
    back = networked.ip_json("", "link", "show", "dev0")[0]
    assert (back["address"], back["mtu"]) == (was["address"], was["mtu"])
    until(lambda: networked.status()["converged"], networked.log)
    networked.write(container("beside"))
    until(lambda: not networked.traces("web"), "web is gone")
    assert "uplink" not in _names(networked)


def plug(masu: NetworkedMasu, name: str, mtu: int = 1500) -> None:
    """A network card with a cable to nowhere."""
    end = ("link", "add", name, "mtu", str(mtu), "up", "type", "veth")
    masu.ip(*end, "peer", "name", f"{name}.wall", "mtu", str(mtu))
    masu.ip("link", "set", f"{name}.wall", "up")


def _names(masu: NetworkedMasu) -> set[str]:
    return {each["ifname"] for each in masu.ip_json("", "link")}


def test_two_interfaces_swap_their_names(networked: NetworkedMasu) -> None:
    back = network("back", subnets=["10.89.0.0/24"])
    networked.write(FRONT, back, on("front", "back"))
    networked.start()
    pid = networked.running()
    until(lambda: addresses(networked, interface="eth1") == {"10.89.0.2/24"}, networked.log)
    networked.write(FRONT, back, on("back", "front"))
    until(lambda: addresses(networked) == {"10.89.0.2/24"}, networked.log)
    until(lambda: addresses(networked, interface="eth1") == {"10.88.0.2/24", "fd88::2/64"}, networked.log)
    until(lambda: networked.plan()["changes"] == [], networked.log)
    assert networked.pid() == pid


@pytest.mark.on_v2_long
def test_a_port_belongs_to_whoever_had_it_first(networked: NetworkedMasu) -> None:
    site = {"args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}
    listen = [*networked.at(""), sys.executable, "-c", LISTENER]
    with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout
            program.stdout.readline()
            networked.write(FRONT, on("front", process=site, ports=["8080:80", "8081:80"]))
            networked.start()
            pid = networked.running()
            conditions = until(lambda: networked.status().get("conditions"), networked.log)
            assert "a program of this host listens there" in conditions[0]["message"]
            assert "8080/tcp" in conditions[0]["message"]
            assert networked.fetch("", "10.88.0.1", 8080) == "203", "the program still has its port"
            until(lambda: networked.fetch("", "10.88.0.1", 8081) == "200", networked.log)
        finally:
            program.kill()
    until(lambda: networked.fetch("", "10.88.0.1", 8080) == "200", networked.log)
    until(lambda: not networked.status().get("conditions"), networked.log)
    with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout
            program.stdout.readline()
            assert networked.plan()["changes"] == []
            assert networked.fetch("", "10.88.0.1", 8080) == "200", "and now it is the container's"
            assert networked.pid() == pid
        finally:
            program.kill()


LISTENER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(203)
        self.end_headers()
server = HTTPServer(("0.0.0.0", 8080), Answer)
print(flush=True)
server.serve_forever()
"""


def test_a_container_for_which_no_address_is_left_waits_for_one(networked: NetworkedMasu) -> None:
    small = network("front", subnets=["10.88.0.0/30"])
    networked.write(small, on("front", name="a"), on("front", name="b"))
    networked.start()
    networked.running("a")
    waits_for(networked, "NoAddressLeft", "b")
    assert networked.pid("b") == 0
    networked.write(small, on("front", name="b"))
    networked.running("b")
    assert addresses(networked, "b") == {"10.88.0.2/30"}


def test_a_subnet_that_the_host_lives_in_is_not_taken(networked: NetworkedMasu) -> None:
    plug(networked, "nic0")
    networked.ip("addr", "add", "10.88.0.77/24", "dev", "nic0")
    networked.write(FRONT, on("front"))
    networked.start()
    until(lambda: networked.networks().get("front", {}).get("conditions"), networked.log)
    (condition,) = networked.networks()["front"]["conditions"]
    assert condition["reason"] == "SubnetTaken"
    assert "nic0 has 10.88.0.77/24" in condition["message"]
    (way,) = networked.ip_json("", "route", "get", "10.88.0.5")
    assert way["dev"] == "nic0"
    assert networked.pid() == 0
    networked.ip("addr", "del", "10.88.0.77/24", "dev", "nic0")
    networked.running()
