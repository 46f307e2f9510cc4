"""Links, addresses and routes: as the kernel shows them, and what is asked of it. Pure values.

`index` is the kernel's number of a link within its network namespace, and `link` its number or its name; addresses
are text such as "10.88.0.10/24".
"""

from __future__ import annotations

from controller.frozen import dataclass

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
    hairpin: bool = False
    """Of a bridge's port: whether what comes in through it may go out again by it."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a link of the host was like before a container had it; `mtu` in bytes."""

    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """`ours`: masu added it. Link-local addresses that the kernel makes are not reported."""

    index: int
    address: str
    ours: bool


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """A unicast route of the main table; `destination` is a prefix or "default", `via` empty for none.

    `ours`: masu made it, as opposed to the kernel (for an address on the link), an administrator or a daemon.
    """

    index: int
    family: int
    destination: str
    via: str
    metric: int
    ours: bool
    advertised: bool = False
    """By a router: IPv6 router advertisements."""


@dataclass(frozen=True, slots=True)
class NewLink:
    """Make a link; `parent` is a macvlan's, `peer` the other end of a veth. Empty or 0: the kernel's choice.

    `where`: the namespace in which the peer is made, or the link itself where it has none. The mark of a link on
    the spot comes in a second message, because the kernel takes none with the first: a link of masu's name that is
    down and has no alias is half made. That of one made elsewhere is for a `SetLink` there.
    """

    kind: str
    name: str
    alias: str = ""
    mac: str = ""
    mtu: int = 0
    master: str = ""
    parent: str = ""
    up: bool = True
    peer: NewLink | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class SetLink:
    """Change what is not None. `where`: move it to that container's namespace, or home for ""; `master` likewise
    is the name of a bridge, or "" for none.
    """

    link: int | str
    name: str | None = None
    alias: str | None = None
    mac: str | None = None
    mtu: int | None = None
    master: str | None = None
    up: bool | None = None
    where: str | None = None
    hairpin: bool | None = None


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """A veth goes with its other end."""

    link: int | str


@dataclass(frozen=True, slots=True)
class NewAddress:
    """Marked as masu's, usable at once: nobody is asked whether it is taken (no duplicate address detection)."""

    link: int | str
    address: str


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    link: int | str
    address: str


@dataclass(frozen=True, slots=True)
class NewRoute:
    """Marked as masu's; takes the place of another route to the same destination with the same metric.

    With a `source`, it is what the kernel itself makes for that address, and stands beside others'.
    """

    link: int | str
    destination: str
    via: str = ""
    metric: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    link: int | str
    destination: str
    via: str = ""
    metric: int = 0


LinkChange = NewLink | SetLink | DeleteLink | NewAddress | DeleteAddress | NewRoute | DeleteRoute
