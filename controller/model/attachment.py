"""A container's interfaces, and the networks they are on, with every name and number filled in. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from controller.frozen import dataclass
from controller.model.network import Type
from controller.model.queueing import Classifier, HtbTree, Shaper

NAME_FILES = ("hosts", "hostname", "resolv.conf")
"""In /etc of a container."""


@dataclass(frozen=True, slots=True)
class Route:
    destination: str
    via: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """Bits per second in one direction; 0: none. `priority`: 0 first, 7 last."""

    most: int = 0
    least: int = 0
    priority: int = 4


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of a container.

    `interface` is its name inside and `link` that of its end on the host (a veth's). `parent` is the host's link
    that it hangs on: the bridge, a macvlan's parent, or the device that moves in. `mark` is the text in both ends'
    alias. `settings`: file below /proc/sys/net → (key, value). `slot`: its number among the network's classes of
    traffic.
    """

    network: str
    type: Type
    interface: str
    link: str
    parent: str
    mark: str
    mac: str
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    """Subnets in which no address is left for it."""
    taken: tuple[tuple[str, str], ...] = ()
    """Addresses that its spec asks for, and the containers that have them."""
    routes: tuple[Route, ...] = ()
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    shares: Mapping[str, Share] = field(default_factory=dict)
    slot: int = 0
    publishes: bool = False
    """Whether the container can be reached by ports of the host, itself included."""
    funnels: Mapping[str, str] = field(default_factory=dict)
    """Direction → the host's link through which its traffic goes; those are shared out there."""
    shapers: Mapping[str, Shaper] = field(default_factory=dict)
    """Direction → its own limit, where nothing is shared."""


@dataclass(frozen=True, slots=True)
class Funnel:
    """A link (an ifb) through which everything that a network's containers send, or receive, has to go, and where
    it is shared out."""

    direction: str
    link: str
    mark: str
    tree: HtbTree
    classifier: Classifier


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge as the host should have it; `addresses` are the gateways', with their prefixes."""

    network: str
    link: str
    mark: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    publishes: bool = False
    """Whether ports of IPv4 lead to containers on it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What is generated for /etc of a container: `hosts` in pieces, shared between containers of a network."""

    hostname: str
    hosts: tuple[str, ...]
    resolver: Mapping[str, tuple[str, ...]] | None = None


FIRST_SLOT, LAST_SLOT = 0x10, 0x6FFF
"""Minor numbers of traffic classes; those below and above have other uses (groups)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a container was given on a network, for as long as it is there."""

    addresses: tuple[str, ...] = ()
    slot: int = 0


Leases = Mapping[str, Mapping[str, Lease]]
"""Network → container → what it has."""
