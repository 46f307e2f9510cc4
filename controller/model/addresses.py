"""Addresses, subnets, MACs and ports as people write them. Pure; each raises ValueError with what is wrong."""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from controller.frozen import dataclass
from controller.model.firewall import Ports, Protocol
from controller.model.names import quote

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Subnet = IPv4Network | IPv6Network

LONGEST_TEXT = 64
LAST_PORT = 65_535
EVERYWHERE = "default"

_SPECIAL_V4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")
_SPECIAL_V6 = ("::/128", "::1/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8")
_NOT_FOR_HOSTS = tuple(ip_network(each) for each in (*_SPECIAL_V4, *_SPECIAL_V6))
"""Special-purpose addresses (RFC 6890); 240.0.0.0/4 is not among them, since Linux takes it."""

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_PUBLISHED = re.compile(r"(?:(\[[^]]*\]|[0-9.]+):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")


@dataclass(frozen=True, slots=True, order=True)
class Published:
    """`host_address` empty: every address of the host."""

    protocol: Protocol
    host_address: str
    host_port: int
    port: int

    def clashes(self, other: Published) -> bool:
        """Whether both cannot be had: an address is part of all addresses."""
        same = (self.protocol, self.host_port) == (other.protocol, other.host_port)
        return same and (
            "" in {self.host_address, other.host_address} or self.host_address == other.host_address
        )

    @property
    def text(self) -> str:
        address = f"[{self.host_address}]" if ":" in self.host_address else self.host_address
        return f"{address + ':' if address else ''}{self.host_port}/{self.protocol}"


def parse_subnet(text: str) -> Subnet:
    """A network such as "10.88.0.0/24", with room for a gateway and somebody else."""
    if "/" not in text:
        raise ValueError(f"{quote(text)} is not a subnet: say how long its prefix is, as 10.88.0.0/24")
    try:
        found = ip_network(text, strict=False) if len(text) <= LONGEST_TEXT else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"{quote(text)} is not a subnet: use for example 10.88.0.0/24 or fd88::/64")
    if str(found) != _plain(text):
        raise ValueError(f"{quote(text)} is an address within a subnet: do you mean {found}?")
    if any(found.version == each.version and found.overlaps(each) for each in _NOT_FOR_HOSTS):
        raise ValueError(f"{quote(text)} is not for hosts: use for example 10.88.0.0/24 or fd88::/64")
    if found.num_addresses < 4:
        raise ValueError(f"{quote(text)} is too small: a gateway and one container need four addresses")
    return found


def parse_address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an address: use for example 10.88.0.10 or fd88::10") from None


def parse_interface(text: str) -> Interface:
    """An address, with or without the length of its subnet's prefix."""
    try:
        return ip_interface("" if "%" in text else text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an address: use for example 10.88.0.10/24") from None


def parse_destination(text: str) -> str:
    """Where a route leads: "default", or a prefix in its canonical form."""
    if text == EVERYWHERE:
        return text
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{quote(text)} is not a destination: use default, or for example 10.9.0.0/16"
        ) from None
    if str(found) != _plain(text):
        raise ValueError(f"{quote(text)} is an address within a network: do you mean {found}?")
    return EVERYWHERE if found.prefixlen == 0 else str(found)


def parse_mac(text: str) -> str:
    """In small letters. A MAC of one interface alone: the lowest bit of its first byte is 0 (IEEE 802)."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{quote(text)} is not a MAC address: use for example 02:00:5e:10:00:01")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(
            f"{quote(text)} is not the address of one interface: let its first byte be even, as 02"
        )
    return mac


def parse_published(text: str) -> Published:
    """Of "8080:80/tcp", "127.0.0.1:8080:80" or "[::1]:5353:53/udp"; without a protocol it is tcp."""
    found = _PUBLISHED.fullmatch(text)
    if not found:
        raise ValueError(f'{quote(text)} is not a port to publish: use "8080:80/tcp" or "127.0.0.1:8080:80"')
    address, host_port, port, protocol = found.groups()
    host_address = str(parse_address(address.strip("[]"))) if address else ""
    if host_address in {"0.0.0.0", "::"}:  # noqa: S104  it is refused, not listened on
        raise ValueError(f"{quote(text)}: leave {host_address} out: without an address it is all of them")
    if host_address and parse_address(host_address).is_multicast:
        raise ValueError(f"{quote(text)}: {host_address} is not an address of one host")
    _check_ports(text, host_port, port)
    kind: Protocol = "udp" if protocol == "udp" else "tcp"
    return Published(kind, host_address, int(host_port), int(port))


def parse_ports(text: str) -> Ports:
    """Of "80", "80/tcp" or "8000-8100/udp"."""
    found = _PORTS.fullmatch(text)
    if not found:
        raise ValueError(f'{quote(text)} is not a port: use for example "80", "53/udp" or "8000-8100/tcp"')
    first, last, protocol = found.groups()
    _check_ports(text, first, last or first)
    if int(first) > int(last or first):
        raise ValueError(f"{quote(text)} ends before it begins")
    return Ports("udp" if protocol == "udp" else "tcp", int(first), int(last or first))


def _check_ports(text: str, *ports: str) -> None:
    for each in ports:
        if not 1 <= int(each) <= LAST_PORT:
            raise ValueError(f"{quote(text)}: a port is a number from 1 to {LAST_PORT}")


def _plain(text: str) -> str:
    """The canonical form of an IPv6 text differs from how people may write it; of IPv4 it does not."""
    if ":" not in text:
        return text
    address, _, length = text.partition("/")
    return f"{ip_address(address)}/{length or 128}"
