"""What this kernel can do for networks: tried in a network namespace that ends with the trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.errors import HostLacks, MasuError, NotReadBack
from controller.host.netlink import Netlink, Sockets
from controller.host.nftables import NftablesFirewall
from controller.host.queueing import TrafficControl
from controller.host.rtnetlink import Rtnetlink
from controller.host.ruleset_bridge import Scope
from controller.host.syscalls import CLONE_NEWNET
from controller.host.visits import Trip, Visits
from controller.model.finding import Finding
from controller.model.firewall import FilteredBridge, Firewall
from controller.model.links import NewLink
from controller.model.queueing import Member, Node, Redirect, classes, classifier, shaper

_MBIT = 1_000_000
_NAME = "trial"


def findings() -> list[Finding]:
    """One for each part of networking; nothing of the host is changed."""
    return Visits().call("trying what this kernel can do for networks", _try_all)


def _try_all(trip: Trip) -> list[Finding]:
    trip.leave_for_new(CLONE_NEWNET)
    trial = _Trial(_Here())
    return [
        _finding("bridge networks", "bridge, veth", trial.bridge),
        _finding("macvlan", "macvlan", trial.macvlan),
        _finding("bandwidth", "sch_tbf", trial.bandwidth),
        _finding("shared bandwidth", "ifb, sch_htb, sch_ingress, cls_bpf, act_mirred", trial.shared),
        _finding("packet filter", "nf_tables, nft_chain_nat, nft_masq", trial.filter),
    ]


class _Trial:
    """Each raises MasuError where the kernel cannot do it."""

    def __init__(self, namespace: Sockets) -> None:
        self._links, self._queueing = Rtnetlink(namespace), TrafficControl(namespace)

    def bridge(self) -> None:
        veth = NewLink("veth", "v0", peer=NewLink("veth", "v1"))
        self._links.change("", [NewLink("bridge", "b0"), veth])

    def macvlan(self) -> None:
        self._links.change("", [NewLink("macvlan", "m0", parent="v0")])

    def bandwidth(self) -> None:
        self._shape("v0", shaper(_MBIT, 1500))

    def shared(self) -> None:
        self._links.change("", [NewLink("ifb", "f0")])
        tree = classes(_MBIT, 1500, [], [Member(0x10)])
        self._shape("f0", tree, classifier({"02:00:00:00:00:01": 0x10}, "source"))
        self._shape("v0", Redirect("ingress", self._index("f0")))

    def filter(self) -> None:
        """A network that denies within needs the bridge family, too."""
        bridge = FilteredBridge(_NAME, "b0", ("10.88.0.0/24", "fd88::/64"), nat=True, within="deny")
        lacks = NftablesFirewall(Scope(_NAME, "b", "v"), "").lacks(Firewall((bridge,)))
        if lacks:
            raise HostLacks(lacks)

    def _shape(self, link: str, *nodes: Node) -> None:
        index = self._index(link)
        for node in nodes:
            self._queueing.put("", index, node)
            seen = self._queueing.look("", index)
            if seen is None or not seen.holds(node):
                raise NotReadBack(f"{type(node).__name__}: reads back {seen}")

    def _index(self, link: str) -> int:
        found = self._links.link("", link)
        if found is None:
            raise HostLacks("needs what is missing above")
        return found.index


def _finding(name: str, modules: str, attempt: Callable[[], None]) -> Finding:
    try:
        attempt()
    except MasuError as error:
        return Finding(name, "limited", str(error), f"a kernel with {modules}")
    return Finding(name, "ok", "works")


class _Here:
    """In place of kept namespaces: the calling thread's own."""

    def __init__(self) -> None:
        self._socket = Netlink()

    def socket(self, name: str) -> Netlink:
        del name
        return self._socket

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        raise FileNotFoundError(name)
