"""Traffic control on the real kernel: what is asked for is what is read back, and nothing else is touched.

All of it happens in two network namespaces of the test's own.
"""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.namespaces import KeptNamespaces
from controller.host.netlink import Netlink
from controller.host.queueing import TrafficControl
from controller.host.queueing_write import RTM_DELTCLASS, RTM_NEWQDISC, RTM_NEWTCLASS, RTM_NEWTFILTER
from controller.host.rtnetlink import Rtnetlink
from controller.host.visits import Visits
from controller.model.links import DeleteLink, NewLink, SetLink
from controller.model.queueing import (
    DEFAULT_MINOR,
    Foreign,
    Group,
    HtbTree,
    Member,
    Node,
    QueueingSeen,
    Redirect,
    classes,
    classifier,
    shaper,
)

pytestmark = pytest.mark.root

RTMGRP_TC = 1 << 3
NOTHING = QueueingSeen()
LIMIT = shaper(100_000_000, 1500)
TREE = classes(
    100_000_000, 1500, [Group(0x20, 50_000_000)], [Member(0x30, 80_000_000), Member(0x31, group=0x20)]
)
PROGRAM = classifier({"02:00:00:00:00:01": 0x30, "02:00:00:00:00:02": 0x31}, "source")


@dataclass
class Yard:
    """A namespace that stands for the host, with a veth `port` into one that stands for a container, and an ifb."""

    namespaces: KeptNamespaces
    links: Rtnetlink
    traffic: TrafficControl

    def index(self, name: str, where: str = "yard") -> int:
        found = self.links.link(where, name)
        assert found is not None
        return found.index

    def look(self, name: str = "port", where: str = "yard") -> QueueingSeen | None:
        return self.traffic.look(where, self.index(name, where))

    def put(self, node: Node, name: str = "port", where: str = "yard") -> None:
        self.traffic.put(where, self.index(name, where), node)

    def take(self, node: Node, name: str = "port", where: str = "yard") -> None:
        self.traffic.take(where, self.index(name, where), node)

    def tc(self, words: str, where: str = "yard") -> str:
        """What a person would type there; `_` is a space within a word."""
        inside = [
            "nsenter",
            f"--net={self.namespaces.path(where)}",
            "tc",
            *(word.replace("_", " ") for word in words.split()),
        ]
        return subprocess.run(inside, check=True, capture_output=True, text=True, timeout=10).stdout


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    namespaces = KeptNamespaces(str(tmp_path / "netns"), Visits(5.0))
    try:
        for name in ("yard", "inside"):
            namespaces.make(name, low_ports=False)
        links = Rtnetlink(namespaces)
        port = NewLink("veth", "port", peer=NewLink("veth", "eth0", where="inside"), where="inside")
        links.change("yard", [port, NewLink("ifb", "funnel")])
        links.change("inside", [SetLink("eth0", up=True)])
        yield Yard(namespaces, links, TrafficControl(namespaces))
    finally:
        for name in namespaces.names():
            namespaces.remove(name)


@pytest.fixture
def nodes(yard: Yard) -> dict[str, tuple[Node, ...]]:
    """Link → nodes, in an order in which they can be put."""
    funnel = yard.index("funnel")
    return {
        "port": (LIMIT, Redirect("ingress", funnel), Redirect("egress", funnel)),
        "funnel": (TREE, PROGRAM),
    }


def test_a_link_without_limits_has_nothing(yard: Yard) -> None:
    assert [yard.look("port"), yard.look("funnel"), yard.look("eth0", "inside")] == [NOTHING] * 3


def test_every_node_reads_back_as_it_was_asked_for(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    for name, wanted in nodes.items():
        for node in wanted:
            yard.put(node, name)
            seen = yard.look(name)
            assert seen is not None
            assert seen.holds(node), f"{seen}\n{node}"
    assert yard.look("port") == QueueingSeen(LIMIT, nodes["port"][1:], None)  # type: ignore[arg-type]
    assert yard.look("funnel") == QueueingSeen(TREE, (), PROGRAM)


def test_the_shaper_works_inside_of_a_container_too(yard: Yard) -> None:
    yard.put(LIMIT, "eth0", "inside")
    assert yard.look("eth0", "inside") == QueueingSeen(LIMIT)
    assert yard.look("port") == NOTHING


@pytest.mark.parametrize(
    "bits", [8_000, 1_000_000, 9_999_999, 10_000_000, 123_456_789, 10**9, 10**11, 10**12]
)
@pytest.mark.parametrize("mtu", [1280, 1500, 9000, 65535])
def test_all_rates_read_back(yard: Yard, bits: int, mtu: int) -> None:
    yard.put(shaper(bits, mtu))
    assert yard.look() == QueueingSeen(shaper(bits, mtu))
    tree = classes(
        bits, mtu, [Group(0x10, bits // 2)], [Member(0x11, group=0x10), Member(0x12, bits // 3, bits)]
    )
    yard.put(tree, "funnel")
    assert yard.look("funnel") == QueueingSeen(tree)


def test_twice_is_once(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    for name, wanted in nodes.items():
        for node in (*wanted, *wanted):
            yard.put(node, name)
    with listening(yard) as heard:
        for name, wanted in nodes.items():
            for node in wanted:
                yard.put(node, name)
    assert heard == []


def test_a_rate_changes_in_place(yard: Yard) -> None:
    yard.put(LIMIT)
    with listening(yard) as heard:
        yard.put(faster := shaper(200_000_000, 1500))
    assert yard.look() == QueueingSeen(faster)
    assert heard == [], "nothing was deleted"


def test_a_class_changes_in_place_and_comes_and_goes(yard: Yard) -> None:
    yard.put(TREE, "funnel")
    yard.put(PROGRAM, "funnel")
    members = [Member(0x30, 20_000_000, 60_000_000, 3), Member(0x32)]
    wanted = classes(100_000_000, 1500, [], members)
    with listening(yard) as heard:
        yard.put(wanted, "funnel")
    assert yard.look("funnel") == QueueingSeen(wanted, (), PROGRAM), "the filter stays"
    assert Counter(heard) == {RTM_DELTCLASS: 2, RTM_NEWTCLASS: 2}, "two go, one changes, one comes"


def test_a_class_moves_into_a_group_and_out_again(yard: Yard) -> None:
    inside = classes(10**8, 1500, [Group(0x20, 10**7)], [Member(0x30, group=0x20), Member(0x31)])
    outside = classes(10**8, 1500, [Group(0x20, 10**7)], [Member(0x30), Member(0x31, group=0x20)])
    for wanted in (inside, outside, inside):
        yard.put(wanted, "funnel")
        assert yard.look("funnel") == QueueingSeen(wanted)


def test_a_classifier_is_replaced_without_a_gap(yard: Yard) -> None:
    yard.put(TREE, "funnel")
    yard.put(PROGRAM, "funnel")
    other = classifier({f"02:00:00:00:{n:02x}:01": 0x30 for n in range(200)}, "destination")
    with listening(yard) as heard:
        yard.put(other, "funnel")
    assert yard.look("funnel") == QueueingSeen(TREE, (), other)
    assert heard == [RTM_NEWTFILTER], "nothing was deleted"


def test_the_longest_classifiers_are_taken(yard: Yard) -> None:
    yard.put(TREE, "funnel")
    for program in (
        classifier({f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}": 0x30 for n in range(1000)}, "source"),
        classifier(
            {f"02:{n * 83 & 255:02x}:00:{n & 255:02x}:00:{n >> 8:02x}": 0x30 for n in range(600)}, "source"
        ),
    ):
        yard.put(program, "funnel")
        assert yard.look("funnel") == QueueingSeen(TREE, (), program)


@pytest.mark.parametrize(
    "before",
    [
        "qdisc add dev {} root bfifo limit 9000",
        "qdisc add dev {} root handle 6d: bfifo limit 9000",
        "qdisc add dev {} root handle 1: bfifo limit 9000",
        "qdisc add dev {} root handle 6d: tbf rate 1mbit burst 9000 limit 9000",
        "qdisc add dev {} root handle 1: tbf rate 1mbit burst 9000 limit 9000",
        "qdisc add dev {} root handle 6d: tbf rate 1mbit burst 9000 limit 9000 peakrate 2mbit mtu 2000",
        "qdisc add dev {} root handle 1: htb default 5",
        "qdisc add dev {} root handle 1: stab overhead 20 htb default 2",
        "qdisc add dev {} root handle 6d: htb default 5",
    ],
)
def test_what_somebody_else_put_at_the_root_is_replaced(yard: Yard, before: str) -> None:
    for name, node in (("port", LIMIT), ("funnel", TREE)):
        yard.tc(before.format(name))
        seen = yard.look(name)
        assert seen is not None
        assert seen.root is not None
        assert not seen.holds(node)
        yard.put(node, name)
        assert yard.look(name) == QueueingSeen(node)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        "qdisc change dev port root handle 6d: stab overhead -14 tbf rate 1mbit burst 9000 limit 9000",
        "qdisc change dev port root handle 6d: tbf rate 100mbit burst 65536 limit 625000",
        "class change dev funnel parent 1:1 classid 1:30 htb rate 1mbit",
        "class change dev funnel parent 1:1 classid 1:30 htb rate 80mbit ceil 100mbit overhead 20",
        "class add dev funnel parent 1:1 classid 1:99 htb rate 1mbit",
        "class del dev funnel classid 1:30",
        "qdisc replace dev funnel parent 1:30 handle 30: bfifo limit 9000",
        "qdisc replace dev funnel parent 1:30 pfifo limit 10",
        "qdisc del dev funnel parent 1:30",
        "filter del dev funnel parent 1: prio 109",
        "qdisc del dev funnel root",
        "filter del dev port ingress prio 109",
        "qdisc del dev port clsact",
    ],
)
def test_drift_is_seen_and_put_right(yard: Yard, nodes: dict[str, tuple[Node, ...]], change: str) -> None:
    for name, wanted in nodes.items():
        for node in wanted:
            yard.put(node, name)
    before = [yard.look(name) for name in nodes]
    yard.tc(change)
    assert [yard.look(name) for name in nodes] != before
    for name, wanted in nodes.items():
        for node in wanted:
            yard.put(node, name)
    assert [yard.look(name) for name in nodes] == before


@pytest.mark.parametrize(
    "foreign",
    [
        "protocol ip prio 109 u32 match u32 0 0",
        "protocol all prio 109 u32 match u32 0 0",
        "protocol ip prio 109 handle 1 bpf bytecode 1,6_0_0_4294967295",
        "protocol all prio 109 handle 2 bpf bytecode 1,6_0_0_4294967295",
        "protocol all prio 109 handle 1 bpf bytecode 1,6_0_0_4294967295",
        "protocol all prio 109 handle 1 bpf bytecode 1,6_0_0_0 action mirred egress redirect dev funnel",
        "protocol all prio 109 handle 1 bpf bytecode 1,6_0_0_4294967295 action mirred egress mirror dev funnel",
    ],
)
def test_a_foreign_filter_at_our_place_is_replaced_and_others_stay(yard: Yard, foreign: str) -> None:
    yard.tc("qdisc add dev port clsact")
    yard.tc(f"filter add dev port ingress {foreign}")
    yard.tc("filter add dev port ingress protocol ip prio 5 u32 match u32 0 0")
    wanted = Redirect("ingress", yard.index("funnel"))
    assert yard.look() == NOTHING
    yard.put(wanted)
    assert yard.look() == QueueingSeen(None, (wanted,))
    yard.take(wanted)
    assert yard.look() == NOTHING
    assert "pref 5 u32" in yard.tc("filter show dev port ingress"), "and so the hooks stay"


def test_an_ingress_discipline_gives_way_to_hooks(yard: Yard) -> None:
    yard.tc("qdisc add dev port ingress")
    assert yard.look() == NOTHING
    wanted = Redirect("egress", yard.index("funnel"))
    yard.put(wanted)
    assert yard.look() == QueueingSeen(None, (wanted,))


def test_a_redirect_follows_a_funnel_that_was_made_anew(yard: Yard) -> None:
    yard.put(old := Redirect("egress", yard.index("funnel")))
    yard.links.change("yard", [DeleteLink("funnel"), NewLink("ifb", "funnel")])
    wanted = Redirect("egress", yard.index("funnel"))
    assert wanted != old
    assert yard.look() == NOTHING, "it leads nowhere"
    yard.put(wanted)
    assert yard.look() == QueueingSeen(None, (wanted,))


def test_taking_leaves_nothing_and_may_be_done_twice(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    before = yard.tc("qdisc show")
    for name, wanted in nodes.items():
        for node in wanted:
            yard.put(node, name)
    for name, wanted in nodes.items():
        for node in (*reversed(wanted), *wanted):
            yard.take(node, name)
        assert yard.look(name) == NOTHING
    assert yard.tc("qdisc show") == before


def test_what_is_not_ours_is_not_taken(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    for name, wanted in nodes.items():
        yard.tc(f"qdisc add dev {name} root handle 77: tbf rate 1mbit burst 9000 limit 9000")
        for node in wanted:
            yard.take(node, name)
        assert yard.look(name) == QueueingSeen(Foreign("tbf", 0x77_0000))


def test_only_the_link_that_is_meant_is_touched(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    yard.tc("qdisc add dev eth0 root handle 77: tbf rate 1mbit burst 9000 limit 9000", "inside")
    before = yard.tc("qdisc show dev eth0", "inside")
    for change in (yard.put, yard.take):
        for name, wanted in nodes.items():
            for node in wanted:
                change(node, name)
    assert yard.tc("qdisc show dev eth0", "inside") == before


def test_what_is_gone_is_nothing_to_look_at_and_fine_to_take(yard: Yard) -> None:
    for where, index in (("yard", 9999), ("nowhere", 1)):
        assert yard.traffic.look(where, index) is None
        for node in (LIMIT, TREE, Redirect("ingress", 1), PROGRAM):
            yard.traffic.take(where, index, node)


def test_a_redirect_that_cannot_be_leaves_the_one_before(yard: Yard) -> None:
    yard.put(wanted := Redirect("ingress", yard.index("funnel")))
    with pytest.raises(
        StepFailed, match=r"redirecting the ingress of link \d+ in the network namespace of yard"
    ):
        yard.put(Redirect("ingress", 9999))
    assert yard.look() == QueueingSeen(None, (wanted,))


def test_failures_say_what_where_and_why(yard: Yard) -> None:
    with pytest.raises(
        StepFailed, match=r"limiting link 9999 in the network namespace of yard to 100Mbit: .*19\)"
    ):
        yard.traffic.put("yard", 9999, LIMIT)
    with pytest.raises(StepFailed, match="nowhere has no network namespace"):
        yard.traffic.put("nowhere", 1, LIMIT)
    orphan = HtbTree(DEFAULT_MINOR, tuple(replace(each, rate_bits=0) for each in TREE.classes))
    with pytest.raises(
        StepFailed, match=r"sharing link \d+ in the network namespace of yard out among 5 classes"
    ):
        yard.put(orphan, "funnel")


def test_many_threads_may_look_at_once(yard: Yard, nodes: dict[str, tuple[Node, ...]]) -> None:
    for node in nodes["funnel"]:
        yard.put(node, "funnel")
    found: list[QueueingSeen | None] = []
    threads = [
        threading.Thread(target=lambda: found.extend(yard.look("funnel") for _ in range(20)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert found == [QueueingSeen(TREE, (), PROGRAM)] * 80


@contextmanager
def listening(yard: Yard) -> Iterator[list[int]]:
    """The types of the notifications that the yard sends meanwhile; filled at the end.

    A look at a link's root is one too, RTM_NEWQDISC: those are left out.
    """
    heard: list[int] = []
    socket = yard.namespaces.visit("yard", "listening", lambda _: Netlink(RTMGRP_TC))
    try:
        yield heard
        heard += [each.kind for each in socket.drain() if each.kind != RTM_NEWQDISC]
    finally:
        socket.close()
