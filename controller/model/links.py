"""Links, addresses and routes: as the kernel shows them, and what is asked of it. Pure values.

`index` is the kernel's number of a link within its network namespace; addresses are text such as "10.88.0.10/24".
"""

from __future__ import annotations

from dataclasses import dataclass, field

MARK = 0x6D
"""masu's number as the origin of an address (IFA_PROTO, Linux 5.18) and of a route (rtm_protocol): whoever made
it, made it for masu. Others' have other numbers."""


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """`peer`: the index of a veth's other end, or of a macvlan's parent, in whatever namespace that is.

    `alias` is the free text that carries masu's mark.
    """

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    master: int = 0
    peer: int = 0


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """`ours`: masu added it. Link-local addresses that the kernel makes are not reported."""

    index: int
    address: str
    ours: bool


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """A unicast route of the main table; `destination` is a prefix or "default", `via` empty for none."""

    index: int
    family: int
    destination: str
    via: str
    metric: int
    ours: bool


@dataclass(frozen=True, slots=True)
class NewLink:
    """Make a link; `parent` is a macvlan's, `peer` the other end of a veth, made in the namespace `peer_where`.

    Empty or 0: the kernel's choice. The mark comes in a second message, because the kernel takes none with the
    first: a link of masu's name that is down and has no alias is half made.
    """

    kind: str
    name: str
    alias: str
    mac: str = ""
    mtu: int = 0
    master: int = 0
    parent: int = 0
    up: bool = True
    peer: NewLink | None = None
    peer_where: str = ""


@dataclass(frozen=True, slots=True)
class SetLink:
    """Change what is not None; `where`: move it to that container's namespace, or home for ""."""

    index: int
    name: str | None = None
    alias: str | None = None
    mac: str | None = None
    mtu: int | None = None
    master: int | None = None
    up: bool | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """A veth goes with its other end."""

    index: int


@dataclass(frozen=True, slots=True)
class NewAddress:
    """Marked as masu's, usable at once: nobody is asked whether it is taken (no duplicate address detection)."""

    index: int
    address: str


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    index: int
    address: str


@dataclass(frozen=True, slots=True)
class NewRoute:
    """Marked as masu's; takes the place of another route to the same destination with the same metric."""

    index: int
    destination: str
    via: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    index: int
    destination: str
    via: str = ""
    metric: int = 0


LinkChange = NewLink | SetLink | DeleteLink | NewAddress | DeleteAddress | NewRoute | DeleteRoute


@dataclass(frozen=True, slots=True)
class NetworkSeen:
    """Everything in one network namespace that masu looks at."""

    links: tuple[LinkSeen, ...] = ()
    addresses: tuple[AddressSeen, ...] = ()
    routes: tuple[RouteSeen, ...] = field(default=())
