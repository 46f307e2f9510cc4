"""What one document alone says about a network or an interface, and cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from controller.errors import SpecInvalid
from controller.spec.parse import parse

ROOTFS = {"rootfs": {"path": "/opt/r"}, "process": {"args": ["/bin/true"]}}
LAN = {"type": "macvlan", "parent": "nic0"}


def problems(kind: str, spec: dict[str, Any]) -> list[str]:
    document = {"apiVersion": "masu/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    try:
        parse(yaml.safe_dump(document, sort_keys=False).encode(), "f.yaml")
    except SpecInvalid as error:
        return [str(each).split(": ", 1)[1] for each in error.problems]
    return []


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"subnets": ["10.88.0.0/24", "fd88::/64"], "gateways": ["10.88.0.1"]}, None),
        ({**LAN, "subnets": ["10.90.0.0/24"], "mtu": 9000}, None),
        ({}, "spec: a bridge needs subnets"),
        ({"type": "macvlan"}, "spec: a macvlan needs parent"),
        ({"type": "hostDevice"}, "spec: a hostDevice needs device"),
        ({"type": "hostDevice", "device": "lo"}, "spec.device: lo cannot be a device"),
        ({"type": "macvlan", "parent": "lo"}, "spec.parent: lo cannot be a parent"),
        ({**LAN, "nat": True}, "spec.nat: nat is for a bridge, and this is a macvlan"),
        ({"subnets": ["10.0.0.0/8", "10.1.0.0/16"]}, "spec.subnets[1]: 10.1.0.0/16 overlaps with 10.0.0.0/8"),
        ({"subnets": ["fd88::/64"], "mtu": 1279}, "spec.mtu: IPv6 needs an MTU of at least 1280"),
        ({"subnets": ["10.8.0.0/24"], "gateways": ["10.9.0.1"]}, "spec.gateways[0]: 10.9.0.1 is in none"),
        ({"subnets": ["10.8.0.0/24"], "gateways": ["10.8.0.255"]}, "spec.gateways[0]: 10.8.0.255 stands for"),
        (
            {"subnets": ["10.8.0.0/24"], "gateways": ["10.8.0.1", "10.8.0.2"]},
            "spec.gateways[1]: 10.8.0.0/24 has a gateway already",
        ),
        (
            {"subnets": ["10.8.0.0/24"], "policy": {"allow": [{"name": "x"}, {"name": "x"}]}},
            'spec.policy.allow[1].name: there is a rule "x" already',
        ),
    ],
)
def test_a_network(spec: dict[str, Any], problem: str | None) -> None:
    found = problems("Network", spec)
    assert len(found) == (problem is not None)
    assert all(each.startswith(problem or "") for each in found), found


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"routes": [{"to": "default", "via": "10.88.0.9"}, {"to": "fd99::/64", "via": "fe80::1"}]}, None),
        ({"addresses": ["10.88.0.5", "fd88::5"], "egress": {"min": "1Mbit", "max": "2Mbit"}}, None),
        ({"interface": "lo"}, "interface: lo is the loopback interface"),
        ({"interface": "all"}, "interface: all is how the kernel's settings name"),
        ({"interface": "default"}, "interface: default is how the kernel's settings name"),
        ({"interface": "-x"}, 'interface: "-x" is not the name of a network interface'),
        ({"addresses": ["10.88.0.5", "10.88.0.5/24"]}, "addresses[1]: 10.88.0.5 is in this list already"),
        ({"addresses": ["fd88::5%eth0"]}, 'addresses[0]: "fd88::5%eth0" is not an address'),
        ({"egress": {"min": "2Mbit", "max": "1Mbit"}}, "egress.min: min is above max: 2Mbit > 1Mbit"),
        ({"routes": [{"to": "default"}]}, "routes[0]: a default route needs via"),
        ({"routes": [{"to": "0.0.0.0/0"}]}, "routes[0]: a default route needs via"),
        (
            {"routes": [{"to": "10.9.0.0/16", "via": "fd88::1"}]},
            "routes[0]: 10.9.0.0/16 cannot be reached via",
        ),
        ({"routes": [{"to": "::/0", "via": "10.88.0.1"}]}, "routes[0]: ::/0 cannot be reached via 10.88.0.1"),
        ({"routes": [{"to": "10.9.0.0/16", "via": "0.0.0.0"}]}, "routes[0]: 0.0.0.0 is not the address of"),
        (
            {"routes": [{"to": "10.9.0.0/16", "via": "224.0.0.1"}]},
            "routes[0]: 224.0.0.1 is not the address of",
        ),
    ],
)
def test_an_interface(entry: dict[str, Any], problem: str | None) -> None:
    found = problems("Container", {**ROOTFS, "networks": [{"network": "front", **entry}]})
    assert len(found) == (problem is not None)
    assert all(each.startswith(f"spec.networks[0].{problem}") for each in found), found


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"ports": ["80:80"]},
            "spec.ports: ports need a network to lead to: write networks: [{network: NAME}]",
        ),
        (
            {"networks": [{"network": "a"}], "namespaces": {"net": "host"}},
            "spec.networks: networks need a private",
        ),
        (
            {"networks": [{"network": "a"}, {"network": "a"}]},
            'spec.networks[1].network: it is on network "a"',
        ),
        (
            {"networks": [{"network": "a"}, {"network": "b", "interface": "eth0"}]},
            "spec.networks[1].interface: there is an interface eth0 already",
        ),
        (
            {
                "networks": [
                    {"network": "a", "routes": [{"to": "default", "via": "10.0.0.1"}]},
                    {"network": "b", "routes": [{"to": "0.0.0.0/0", "via": "10.1.0.1"}]},
                ]
            },
            "spec.networks[1].routes[0]: there is a route to default of that metric already",
        ),
        (
            {"networks": [{"network": "a"}], "ports": ["80:80", "127.0.0.1:80:81"]},
            "spec.ports[1]: 127.0.0.1:80/tcp is published already",
        ),
    ],
)
def test_a_container(spec: dict[str, Any], problem: str) -> None:
    (found,) = problems("Container", {**ROOTFS, **spec})
    assert found.startswith(problem)
