"""A `kind: Network` as its spec means it: what is left out is filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from controller.frozen import dataclass
from controller.model.addresses import (
    Address,
    Interface,
    Subnet,
    parse_address,
    parse_interface,
    parse_subnet,
)
from controller.model.quantity import parse_rate
from controller.model.resource import Resource

Type = Literal["bridge", "macvlan", "hostDevice"]
DIRECTIONS: tuple[Literal["egress", "ingress"], ...] = ("egress", "ingress")
LEAST_MTU_V6 = 1280
USUAL_MTU = 1500
JUMBO_MTU = 9000
"""What a link may have whose MTU nobody has written."""


@dataclass(frozen=True, slots=True)
class Network:
    """`gateways`: one per subnet, or None where there is none. `budget`: direction → bits per second.

    `mtu` in bytes; 0: the parent's, or the device's own.
    """

    name: str
    type: Type
    subnets: tuple[Subnet, ...]
    gateways: tuple[Address | None, ...]
    mtu: int
    nat: bool
    parent: str
    device: str
    budget: Mapping[str, int]
    policy: Mapping[str, Any]

    @classmethod
    def of(cls, resource: Resource) -> Network:
        spec = resource.spec
        kind: Type = spec.get("type", "bridge")
        subnets = tuple(parse_subnet(each) for each in spec.get("subnets", ()))
        return cls(
            name=resource.name,
            type=kind,
            subnets=subnets,
            gateways=tuple(_gateway(each, spec.get("gateways"), kind) for each in subnets),
            mtu=spec.get("mtu", USUAL_MTU if kind == "bridge" else 0),
            nat=kind == "bridge" and spec.get("nat", True),
            parent=spec.get("parent", ""),
            device=spec.get("device", ""),
            budget={each: parse_rate(spec[each]["max"]) for each in DIRECTIONS if each in spec},
            policy=spec.get("policy", {}),
        )

    def subnet_of(self, address: Address) -> Subnet | None:
        return next((each for each in self.subnets if address in each), None)

    def with_prefix(self, written: str) -> Interface | None:
        """An address as a container has it: with its subnet's prefix; None outside of every subnet, or with another
        prefix. A network without subnets takes what is written.
        """
        found = parse_interface(written)
        if not self.subnets:
            return found
        subnet = self.subnet_of(found.ip)
        if subnet is None or ("/" in written and found.network.prefixlen != subnet.prefixlen):
            return None
        return parse_interface(f"{found.ip}/{subnet.prefixlen}")

    def is_for_hosts(self, address: Address) -> bool:
        """Neither the subnet's own address nor its broadcast address."""
        subnet = self.subnet_of(address)
        if subnet is None:
            return not self.subnets
        return address != subnet.network_address and (
            subnet.version == 6 or address != subnet.broadcast_address
        )


def interfaces_of(container: Resource) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """(name inside, entry of `networks`) for each: eth0, eth1 … where no name is written."""
    entries = container.section("networks") or ()
    return tuple((each.get("interface", f"eth{index}"), each) for index, each in enumerate(entries))


def networks_of(container: Resource) -> tuple[str, ...]:
    return tuple(each["network"] for each in container.section("networks") or ())


def group_of(container: Resource, sort: str) -> str:
    """The group whose budget of that sort it shares; empty for none."""
    written = container.section("group") or ""
    return written if isinstance(written, str) else str(written.get(sort, ""))


def _gateway(subnet: Subnet, written: Iterable[str] | None, kind: Type) -> Address | None:
    if written is not None:
        return next((each for each in map(parse_address, written) if each in subnet), None)
    return subnet.network_address + 1 if kind == "bridge" else None
