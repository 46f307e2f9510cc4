"""What the host's packet filter does for an instance: networks, published ports, and who may reach whom.

Pure values, resolved: links and addresses, no names to be looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from controller.frozen import dataclass

Protocol = Literal["tcp", "udp"]
Verdict = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True, order=True)
class FilteredBridge:
    """One bridge network: `link` is its interface on the host, `subnets` such as "10.88.0.0/24".

    `nat`: what leaves it goes out under the host's own address, and nothing comes in but what is published.
    `within`: whether its containers reach each other where no rule says so.
    """

    network: str
    link: str
    subnets: tuple[str, ...]
    nat: bool
    within: Verdict = "allow"


@dataclass(frozen=True, slots=True, order=True)
class Publication:
    """A port of the host that leads to a container, for one address family (that of `address`).

    `host_address`: the only address of the host that it is published on; empty: all of them.
    """

    protocol: Protocol
    host_address: str
    host_port: int
    address: str
    port: int
    container: str
    network: str

    def clashes(self, other: Publication) -> bool:
        """Pure. Whether both cannot be had: an address of the host is part of all of them."""
        return (self.protocol, self.host_port, ":" in self.address) == (
            other.protocol,
            other.host_port,
            ":" in other.address,
        ) and ("" in {self.host_address, other.host_address} or self.host_address == other.host_address)


@dataclass(frozen=True, slots=True)
class Listener:
    """A program of the host that waits for whoever comes to `port`; `address` empty: at all of those `versions`."""

    protocol: Protocol
    address: str
    port: int
    versions: frozenset[int]

    def is_met(self, by: Publication) -> bool:
        """Pure. Whether what is meant for it would come to the container instead."""
        return (
            (self.protocol, self.port) == (by.protocol, by.host_port)
            and (6 if ":" in by.address else 4) in self.versions
            and (not self.address or not by.host_address or self.address == by.host_address)
        )


def withheld(
    wanted: Iterable[Publication],
    listeners: Collection[Listener],
    others: Mapping[str, Collection[Publication]],
) -> dict[Publication, str]:
    """Pure. What cannot be published because somebody was there first → who. `others`: instance → its own."""
    found = {}
    for each in wanted:
        if any(one.is_met(each) for one in listeners):
            found[each] = "a program of this host listens there"
        for instance, published in others.items():
            if any(one.clashes(each) for one in published):
                found[each] = f"instance {instance} publishes it"
    return found


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """`first` to `last` of a protocol."""

    protocol: Protocol
    first: int
    last: int


@dataclass(frozen=True, slots=True, order=True)
class Allowance:
    """`sources` may open connections to `targets`, which are on `network`, at `ports` (none: at all of them).

    Both are addresses or prefixes of either family. `name` identifies its counter, unique in the instance.
    """

    name: str
    network: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True)
class Firewall:
    """Everything that the instance's own table says, and nothing else."""

    bridges: tuple[FilteredBridge, ...] = ()
    publications: tuple[Publication, ...] = ()
    allowances: tuple[Allowance, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.bridges
