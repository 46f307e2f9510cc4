"""What the aspects of networks make of what they see: pure diffs, without a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from controller.aspects import bandwidth, bridge, funnels, gateways, interfaces, routes
from controller.aspects._base import Subject
from controller.model.attachment import Attachment, Bridge, Funnel, Route
from controller.model.links import AddressSeen, Device, LinkSeen, NewRoute, RouteSeen
from controller.model.queueing import Foreign, QueueingSeen, Redirect, classes, classifier, shaper
from controller.steps._base import Step

MARK = "masu/t/container/web/front"
RUNNING = Subject("web", "/masu/t/web", pid=7, record=None, now_ms=1000)
ENDED = replace(RUNNING, pid=0)
NETWORK = replace(RUNNING, name="network/front")
WEB = Attachment("front", "bridge", "eth0", "mv0", "mb0", MARK, "02:00:00:00:00:01", mtu=1500)
INSIDE = LinkSeen(2, "eth0", "veth", MARK, WEB.mac, 1500, up=True, peer=9)
OUTSIDE = LinkSeen(9, "mv0", "veth", MARK, "02:00:00:00:00:99", 1500, up=True, master=5, peer=2)
PARENT = LinkSeen(5, "mb0", "bridge", "masu/t/network/front", "", 1500, up=True)
LAN = replace(WEB, type="macvlan", link="", parent="nic0", mtu=0)
ON_LAN = replace(INSIDE, kind="macvlan", peer=3)
NIC = LinkSeen(3, "nic0", "", "", "", 1500, up=True)
NIC1 = replace(NIC, index=4, name="nic1")
DEVICE = replace(WEB, type="hostDevice", link="", parent="nic1", mac="", mtu=0, mark=f"{MARK}/nic1")


def kinds(steps: Iterable[Step]) -> list[str]:
    return [each.kind for each in steps]


def texts(steps: Iterable[Step]) -> list[str]:
    return [each.text for each in steps]


def seen(
    *inside: LinkSeen, outside: LinkSeen | None = OUTSIDE, parent: LinkSeen | None = PARENT
) -> interfaces.Seen:
    return interfaces.Seen(inside, {"front": outside}, {"mb0": parent, "nic0": parent, "nic1": parent})


def diff(observed: interfaces.Seen, *wanted: Attachment, subject: Subject = RUNNING) -> list[Step]:
    return interfaces.Interfaces().diff(subject, wanted or (WEB,), observed)


def test_a_pair_as_it_should_be_is_left_alone() -> None:
    assert diff(seen(INSIDE)) == []


@pytest.mark.parametrize(
    ("inside", "outside", "text"),
    [
        (replace(INSIDE, name="eth7"), OUTSIDE, "set interface networks.eth0: eth7 → eth0"),
        (replace(INSIDE, up=False), OUTSIDE, "set interface networks.eth0.state: down → up"),
        (INSIDE, replace(OUTSIDE, up=False), "set interface networks.eth0.link.state: down → up"),
        (INSIDE, replace(OUTSIDE, master=0), "set interface networks.eth0.bridge: none → mb0"),
        (INSIDE, replace(OUTSIDE, master=6), "set interface networks.eth0.bridge: link 6 → mb0"),
        (replace(INSIDE, mtu=9000), OUTSIDE, "set interface networks.eth0.mtu: 9000 → 1500"),
        (INSIDE, replace(OUTSIDE, mtu=9000), "set interface networks.eth0.link.mtu: 9000 → 1500"),
        (INSIDE, replace(OUTSIDE, name="x0"), "set interface networks.eth0.link: x0 → mv0"),
        (INSIDE, replace(OUTSIDE, alias=""), f"set interface networks.eth0.mark: none → {MARK}"),
        (
            replace(INSIDE, mac="02:00:00:00:00:02"),
            OUTSIDE,
            f"set interface networks.eth0.mac: 02:00:00:00:00:02 → {WEB.mac}",
        ),
    ],
)
def test_what_differs_is_set_and_nothing_else(inside: LinkSeen, outside: LinkSeen, text: str) -> None:
    assert texts(diff(seen(inside, outside=outside))) == [text]


@pytest.mark.parametrize(
    ("inside", "outside"),
    [(INSIDE, None), (None, OUTSIDE), (replace(INSIDE, peer=8), OUTSIDE), (INSIDE, replace(OUTSIDE, peer=3))],
)
def test_two_that_are_no_pair_go_and_are_made_anew(inside: LinkSeen | None, outside: LinkSeen | None) -> None:
    steps = diff(seen(*([inside] if inside else []), outside=outside))
    assert kinds(steps)[-1] == "Await"
    assert set(kinds(steps)[:-1]) == {"RemoveInterface"}
    assert steps[-1].scope == "networks.eth0", "other interfaces need not wait"


def test_somebody_elses_link_of_that_name_is_not_removed() -> None:
    steps = diff(seen(INSIDE, outside=replace(OUTSIDE, alias="theirs", peer=77)))
    assert [text for text in texts(steps) if "remove" in text] == [
        "remove interface networks.eth0: there → without its other end"
    ]
    assert [each.requests[0][0] for each in steps if each.kind == "RemoveInterface"] == ["web"]  # type: ignore[attr-defined]


def test_links_inside_that_nobody_marked_are_the_containers_own() -> None:
    tun = LinkSeen(8, "tun0", "tun", "", "", 1400, up=True)
    assert diff(seen(INSIDE, tun)) == []


def test_names_are_made_free_before_they_are_given_anew() -> None:
    back = replace(WEB, network="back", interface="eth1", link="mv1", mark=f"{MARK}2")
    swapped = (replace(WEB, interface="eth1"), replace(back, interface="eth0"))
    live = interfaces.Seen(
        (INSIDE, replace(INSIDE, index=4, name="eth1", alias=back.mark, peer=10)),
        {"front": OUTSIDE, "back": replace(OUTSIDE, index=10, name="mv1", alias=back.mark, peer=4)},
        {"mb0": PARENT},
    )
    assert texts(diff(live, *swapped)) == [
        "set interface networks.aside2: eth0 → aside2",
        "set interface networks.aside4: eth1 → aside4",
        "set interface networks.eth1: aside2 → eth1",
        "set interface networks.eth0: aside4 → eth0",
    ]


def test_nothing_is_taken_away_before_the_last_process_has_ended() -> None:
    aspect = interfaces.Interfaces()
    assert aspect.remove(RUNNING, seen(INSIDE)) == []
    assert kinds(aspect.remove(ENDED, seen(INSIDE))) == ["RemoveInterface"]


@pytest.mark.parametrize(
    ("wanted", "inside", "parent", "reason"),
    [
        (WEB, None, None, "WaitsForNetwork"),
        (LAN, None, None, "NoParent"),
        (LAN, ON_LAN, None, "NoParent"),
        (replace(LAN, mtu=9000), ON_LAN, NIC, "MtuTooLarge"),
        (DEVICE, None, None, "NoDevice"),
        (DEVICE, None, NIC, "NoDevice"),  # found by another name of its own
        (DEVICE, None, replace(NIC1, alias="masu/other/container/x/y/nic1"), "DeviceTaken"),
    ],
)
def test_what_the_host_lacks_is_waited_for(
    wanted: Attachment, inside: LinkSeen | None, parent: LinkSeen | None, reason: str
) -> None:
    (step,) = diff(seen(*([inside] if inside else []), outside=None, parent=parent), wanted)
    assert (step.kind, step.reason) == ("Await", reason)  # type: ignore[attr-defined]


def test_a_macvlan_follows_its_parent() -> None:
    assert diff(seen(ON_LAN, outside=None, parent=NIC), LAN) == []
    steps = diff(seen(replace(ON_LAN, peer=4), outside=None, parent=NIC), LAN)
    assert kinds(steps) == ["RemoveInterface", "Await"]
    assert kinds(diff(seen(outside=None, parent=NIC), LAN)) == ["MakeInterface"]
    steps = diff(seen(ON_LAN, outside=None, parent=replace(NIC, mtu=9000)), LAN)
    assert texts(steps) == ["set interface networks.eth0.mtu: 1500 → 9000"]


def test_a_device_moves_in_with_its_mark_and_is_given_back_under_its_old_name() -> None:
    (step,) = diff(seen(outside=None, parent=NIC1), DEVICE)
    (again,) = diff(seen(outside=None, parent=replace(NIC1, alias=DEVICE.mark)), DEVICE)
    assert again.kind == step.kind, "the kernel gave it back with its mark when the namespace ended"
    where, move = step.requests[0]  # type: ignore[attr-defined]
    assert (where, move.where, move.name, move.alias) == ("", "web", "eth0", f"{MARK}/nic1")
    inside = replace(INSIDE, kind="", alias=f"{MARK}/nic1", peer=0)
    assert diff(seen(inside, outside=None, parent=None), DEVICE) == []
    assert interfaces.Interfaces().remove(ENDED, seen(inside)) == [], "the host never gave it"
    lent = replace(seen(inside), lent={inside.alias: Device(inside.mac, 9000)})
    (back,) = interfaces.Interfaces().remove(ENDED, lent)
    _, restored = back.requests[0]  # type: ignore[attr-defined]
    assert (restored.mac, restored.mtu) == (None, 9000)
    where, change = back.requests[1]  # type: ignore[attr-defined]
    assert (back.kind, where) == ("ReturnInterface", "web")
    assert (change.where, change.name, change.alias) == ("", "nic1", "")


# --- bandwidth ---

LIMIT, OTHER = shaper(10_000_000, 1500), shaper(20_000_000, 1500)


def limits(wanted: Attachment, ends: bandwidth.Ends) -> list[str]:
    return texts(bandwidth.Bandwidth().diff(RUNNING, (wanted,), {"front": ends}))


@pytest.mark.parametrize(
    ("wanted", "live", "text"),
    [
        (LIMIT, None, ["set networks.eth0.egress: none → 10Mbit"]),
        (LIMIT, LIMIT, []),
        (LIMIT, OTHER, ["set networks.eth0.egress: 20Mbit → 10Mbit"]),
        (LIMIT, replace(LIMIT, limit_bytes=1), ["set networks.eth0.egress: 10Mbit, altered → 10Mbit"]),
        (LIMIT, Foreign("fq", 0x80010000), ["set networks.eth0.egress: fq 8001: → 10Mbit"]),
        (None, LIMIT, ["remove networks.eth0.egress: 10Mbit → none"]),
        (None, Foreign("fq", 0x80010000), []),
    ],
)
def test_a_bucket_where_the_traffic_leaves(wanted: Any, live: Any, text: list[str]) -> None:
    attachment = replace(WEB, shapers={"egress": wanted} if wanted else {})
    assert limits(attachment, bandwidth.Ends(inside=QueueingSeen(live))) == text
    received = replace(WEB, shapers={"ingress": wanted} if wanted else {})
    assert limits(received, bandwidth.Ends(outside=QueueingSeen(live))) == [
        each.replace("egress", "ingress") for each in text
    ]


@pytest.mark.parametrize(
    ("wanted", "live", "funnel", "text"),
    [
        ("mo0", 0, 4, ["lead networks.eth0.egress.funnel: none → mo0"]),
        ("mo0", 4, 4, []),
        ("mo0", 4, 6, ["lead networks.eth0.egress.funnel: link 4 → mo0"]),
        ("mo0", 4, 0, ["lead networks.eth0.egress.funnel: link 4 → mo0"]),
        ("", 4, 0, ["no longer lead networks.eth0.egress.funnel: link 4 → none"]),
    ],
)
def test_what_is_shared_is_led_through_the_funnel(
    wanted: str, live: int, funnel: int, text: list[str]
) -> None:
    redirects = (Redirect("ingress", live),) if live else ()
    ends = bandwidth.Ends(outside=QueueingSeen(redirects=redirects), funnels={"egress": funnel})
    assert limits(replace(WEB, funnels={"egress": wanted} if wanted else {}), ends) == text


# --- networks ---

TREE, FILTER = classes(1_000_000, 1500, [], []), classifier({}, "source")
FUNNEL = Funnel("egress", "mo0", "masu/t/egress/front", TREE, FILTER)
MADE = LinkSeen(4, "mo0", "ifb", FUNNEL.mark, "", 1500, up=True)
SHARES = QueueingSeen(TREE, (), FILTER)


def funnel_steps(wanted: tuple[Funnel, ...], **there: funnels.Seen) -> list[str]:
    return texts(funnels.Funnels().diff(NETWORK, wanted, there))


def test_a_funnel_is_made_whole_and_left_alone_then() -> None:
    made = funnel_steps((FUNNEL,))
    assert made[0] == "make egress.funnel: absent → mo0"
    assert len(made) == 3
    assert funnel_steps((FUNNEL,), egress=funnels.Seen(FUNNEL.mark, MADE, SHARES, used=False)) == []


def test_a_funnel_goes_when_nobody_leads_into_it_any_more() -> None:
    used = funnels.Seen(FUNNEL.mark, MADE, SHARES, used=True)
    assert funnel_steps((), egress=used) == ["wait: containers still send through mo0"]
    assert funnel_steps((), egress=replace(used, used=False)) == ["remove egress.funnel: mo0 → none"]


def test_somebody_elses_link_of_a_funnels_name_stays() -> None:
    theirs = funnels.Seen(FUNNEL.mark, replace(MADE, alias="theirs"), QueueingSeen(), used=False)
    assert funnel_steps((), egress=theirs) == []
    (text,) = funnel_steps((FUNNEL,), egress=theirs)
    assert "somebody else's" in text


BRIDGE = Bridge("front", "mb0", PARENT.alias, "02:00:00:00:00:05", 1500, ("10.88.0.1/24",))


def test_a_bridge_is_known_by_its_mark_whatever_it_is_called() -> None:
    renamed = replace(PARENT, name="x0", mac=BRIDGE.mac)
    assert texts(bridge.Bridge().diff(NETWORK, BRIDGE, bridge.Seen(None, (renamed,)))) == [
        "set bridge.link: x0 → mb0"
    ]


def test_somebody_elses_bridge_is_not_taken() -> None:
    theirs = replace(PARENT, alias="theirs")
    (step,) = bridge.Bridge().diff(NETWORK, BRIDGE, bridge.Seen(theirs, ()))
    assert step.kind == "Await"
    assert bridge.Bridge().remove(NETWORK, bridge.Seen(theirs, ())) == []


OVER_BRIDGE = RouteSeen(PARENT.index, 2, "10.88.0.0/24", "", 0, ours=False)


def test_gateways_of_others_on_the_bridge_stay() -> None:
    ours, theirs = AddressSeen(5, "10.7.0.1/24", ours=True), AddressSeen(5, "10.8.0.1/24", ours=False)
    assert texts(
        gateways.Gateways().diff(NETWORK, BRIDGE, gateways.Seen(PARENT, (ours, theirs), (OVER_BRIDGE,)))
    ) == [
        "add address gateways: missing → 10.88.0.1/24",
        "remove address gateways: 10.7.0.1/24 → none",
    ]


def test_a_subnet_that_the_host_lives_in_is_not_taken() -> None:
    taken = gateways.Seen(PARENT, (), (), {"10.88.0.1/24": ("10.88.0.77/24", "nic0")})
    (step,) = gateways.Gateways().diff(NETWORK, BRIDGE, taken)
    assert step.kind == "Await"


def test_the_way_into_a_subnet_is_made_anew_as_the_kernel_makes_it() -> None:
    live = (AddressSeen(PARENT.index, "10.88.0.1/24", ours=True),)
    assert gateways.Gateways().diff(NETWORK, BRIDGE, gateways.Seen(PARENT, live, (OVER_BRIDGE,))) == []
    (step,) = gateways.Gateways().diff(NETWORK, BRIDGE, gateways.Seen(PARENT, live, ()))
    assert step.text == "add route gateways.routes: missing → 10.88.0.0/24"
    new = NewRoute(PARENT.index, "10.88.0.0/24", source="10.88.0.1")
    assert step.requests == (("", new),)  # type: ignore[attr-defined]
    down = gateways.Seen(replace(PARENT, up=False), live, ())
    assert gateways.Gateways().diff(NETWORK, BRIDGE, down) == []


def test_the_way_into_the_subnet_comes_before_what_leads_further() -> None:
    wanted = replace(WEB, addresses=("10.88.0.2/24",), routes=(Route("default", "10.88.0.1"),))
    live = (AddressSeen(INSIDE.index, "10.88.0.2/24", ours=True),)
    steps = routes.Routes().diff(RUNNING, (wanted,), routes.Seen((INSIDE,), live, ()))
    key = "add route networks.eth0.routes: missing →"
    assert texts(steps) == [f"{key} 10.88.0.0/24", f"{key} default via 10.88.0.1"]
    half_made = routes.Seen((INSIDE,), (), ())
    assert texts(routes.Routes().diff(RUNNING, (wanted,), half_made)) == [f"{key} default via 10.88.0.1"]
