"""Disk space: one diff for layers and volumes, from every state that there is to the one that is wanted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from controller.aspects import _space
from controller.aspects._base import Subject
from controller.aspects._bundle import compose
from controller.aspects._space import Seen, Wanted
from controller.aspects.mounts import Mounts
from controller.aspects.rootfs import Rootfs
from controller.aspects.volume import Volume
from controller.model.process import ProcessStat
from controller.model.record import Record
from controller.model.resource import Resource
from controller.model.space import LEAST, Mechanism, Offer, Space, SpaceSeen, content_path, parse_size
from controller.model.status import HOST_LACKS, LIMITED
from controller.reconcile.desired import Named, resolve
from controller.spec.across import misfits, users
from controller.steps._base import Effect, Step
from controller.steps.spaces import (
    GrowSpace,
    MakeSpace,
    MountSpace,
    SetSpaceOwner,
    SetSpaceRule,
    UnmountSpace,
)
from tests.unit.resources import by_key, container, volume
from tests.worlds import facts

MI = 1 << 20
DATA = Space("volume", "data")
ROOM = Offer("loopImage", free=100 * MI, promised=10 * MI)
LIVE = SpaceSeen("loopImage", 32 * MI, 32 * MI, MI, mounted=True, attached=True, owner=(0, 0), keep=True)
WANTED = Wanted("", 32 * MI, keep=True)
HYBRID = facts("hybrid")


def kinds(wanted: Wanted, live: SpaceSeen, *, busy: bool = False) -> list[str]:
    return [each.kind for each in _space.steps("volume/data", wanted, Seen(DATA, live, ROOM, busy))]


@pytest.mark.parametrize(
    ("live", "wanted", "expected"),
    [
        (LIVE, WANTED, []),
        (SpaceSeen(), WANTED, ["MakeSpace", "MountSpace"]),
        (SpaceSeen(half=True), WANTED, ["MakeSpace", "MountSpace"]),
        (replace(LIVE, mounted=False, owner=None), WANTED, ["MountSpace"]),
        (LIVE, replace(WANTED, size=64 * MI), ["GrowSpace"]),
        (LIVE, replace(WANTED, size=16 * MI), []),
        (replace(LIVE, limit=16 * MI), WANTED, ["GrowSpace"]),
        (replace(LIVE, limit=64 * MI), WANTED, []),
        (replace(LIVE, mechanism="projectQuota", limit=64 * MI), WANTED, ["GrowSpace"]),
        (
            replace(LIVE, mounted=False, owner=None),
            replace(WANTED, size=64 * MI),
            ["MountSpace", "GrowSpace"],
        ),
        (LIVE, replace(WANTED, keep=False), ["SetSpaceRule"]),
        (LIVE, replace(WANTED, owner=(0, 0)), []),
        (LIVE, replace(WANTED, owner=(7, 8)), ["SetSpaceOwner"]),
    ],
)
def test_what_differs_is_put_right_and_nothing_else(
    live: SpaceSeen, wanted: Wanted, expected: list[str]
) -> None:
    assert kinds(wanted, live) == expected


def test_without_the_right_to_grow_in_use_it_grows_when_nobody_is_in_it() -> None:
    live, larger = replace(LIVE, grows=False), replace(WANTED, size=64 * MI)
    assert kinds(larger, live) == ["UnmountSpace", "GrowSpace", "MountSpace"]
    assert kinds(larger, live, busy=True) == []
    assert kinds(larger, replace(live, mounted=False, attached=False)) == ["GrowSpace", "MountSpace"]
    assert kinds(larger, replace(live, mounted=False)) == ["MountSpace"], "somebody is in it"
    (said,) = _space.remarks(larger, Seen(DATA, live, ROOM, busy=True))
    assert (said.type, said.reason) == (HOST_LACKS, "NoLiveGrowth")


@pytest.mark.parametrize(("boot", "busy"), [("boot", True), ("before", False)])
def test_a_process_that_has_the_pid_of_one_before_the_reboot_is_nobody(boot: str, busy: bool) -> None:
    """Where /run outlives a reboot, pid and start time may come to be those of somebody else."""
    record = Record("web", "", "", "running", boot, pid=7, start_time=99)
    host: Any = SimpleNamespace(
        facts=HYBRID,
        spaces=SimpleNamespace(look=lambda _: replace(LIVE, grows=False), offer=lambda: ROOM),
        records=SimpleNamespace(read=lambda _: record),
        processes=SimpleNamespace(stat=lambda pid: ProcessStat(pid, "S", 1, 99)),
    )
    wanted = Volume().parse({"spec": {"size": "64Mi"}, "users": ["web"], "hostUsers": []}, HYBRID)
    assert Volume().observe(Subject("volume/data", "", 0, None, 0), host, wanted).busy is busy


def after(live: SpaceSeen, step: Step) -> SpaceSeen:
    match step:
        case MakeSpace(new=new):
            return SpaceSeen(
                "loopImage", new.size, new.size, keep=new.keep, grows=live.grows, owner=new.owner
            )
        case MountSpace():
            return replace(live, mounted=True, attached=True, owner=live.owner or (0, 0))
        case UnmountSpace():
            return replace(live, mounted=False, attached=False)
        case GrowSpace(size=size):
            return replace(live, size=size, limit=size)
        case SetSpaceRule(keep=keep):
            return replace(live, keep=keep)
        case SetSpaceOwner(owner=owner):
            return replace(live, owner=owner)
    raise AssertionError(step)


def test_interrupted_anywhere_it_comes_to_the_same() -> None:
    """From every state, with every number of steps done before somebody ends masu."""
    wanted = Wanted("", 64 * MI, keep=False, owner=(7, 8))
    states = [SpaceSeen(), SpaceSeen(grows=False)]
    states += [
        replace(LIVE, size=size, limit=limit, mounted=mounted, attached=mounted, grows=grows, keep=keep)
        for size, limit, mounted, grows, keep in product(
            (32 * MI, 64 * MI), (32 * MI, 64 * MI), *[(True, False)] * 3
        )
    ]
    for state, done in product(states, range(7)):
        live = state
        for step in list(_space.steps("volume/data", wanted, Seen(DATA, live, ROOM)))[:done]:
            live = after(live, step)
        for _ in range(3):
            for step in _space.steps("volume/data", wanted, Seen(DATA, live, ROOM)):
                live = after(live, step)
        assert kinds(wanted, live) == [], (state, done)
        assert (live.size, live.limit, live.mounted, live.keep, live.owner) == (
            *(64 * MI, 64 * MI, True, False, (7, 8)),
        )


@pytest.mark.parametrize(("boot", "busy"), [(HYBRID.boot_id, True), ("the one before", False)])
def test_whoever_ran_before_the_boot_uses_nothing(boot: str, busy: bool) -> None:
    """Where /run outlives a reboot, another process may have the pid and the start time that are on record."""
    live = replace(LIVE, grows=False)
    host: Any = SimpleNamespace(
        facts=HYBRID,
        spaces=SimpleNamespace(look=lambda _: live, offer=lambda: ROOM),
        records=SimpleNamespace(read=lambda name: Record(name, "", "", "running", boot, 7, 70)),
        processes=SimpleNamespace(stat=lambda pid: ProcessStat(pid, "S", 1, 70)),
    )
    wanted = Volume().parse({"spec": {"size": "64Mi"}, "users": ["web"], "hostUsers": []}, HYBRID)
    assert Volume().observe(Subject("volume/data", "", 0, None, 0), host, wanted).busy is busy


def test_shrinking_and_damage_are_said() -> None:
    (drift,) = _space.verify("volume", replace(WANTED, size=16 * MI), LIVE)
    assert (drift.key, drift.desired, drift.live, drift.reason) == ("size", "16Mi", "32Mi", "CannotShrink")
    (drift,) = _space.verify("volume", WANTED, replace(LIVE, read_only=True))
    assert drift.reason == "Damaged"


def test_more_promised_than_free_is_said_with_both_numbers() -> None:
    (said,) = _space.remarks(WANTED, Seen(DATA, LIVE, Offer("loopImage", "", 3 << 29, 3 << 30)))
    assert (said.type, said.reason) == (LIMITED, "Overcommitted")
    assert "3.0Gi" in said.message
    assert "1.5Gi" in said.message
    (said,) = _space.remarks(WANTED, Seen(DATA, SpaceSeen(), Offer(lack="no mkfs")))
    assert (said.type, said.message) == (HOST_LACKS, "no mkfs")


def test_a_volume_in_which_subvolumes_can_be_made_says_so() -> None:
    """A layer is behind an overlay, which hands no such call on."""
    live = replace(LIVE, mechanism="btrfsQgroup")
    (said,) = _space.remarks(WANTED, Seen(DATA, live, ROOM))
    assert (said.type, said.reason) == (LIMITED, "Evadable")
    assert "subvolumes" in said.message
    assert list(_space.remarks(WANTED, Seen(Space("rootfs", "web"), live, ROOM))) == []


def test_a_project_that_its_users_can_leave_says_so() -> None:
    """The kernel lets the owner of a file change its project in the host's user namespace alone."""
    data = volume("data", size="32Mi")

    def mounting(name: str, user: object, **more: object) -> Resource:
        mounts = [{"volume": "data", "target": "/data", **more}]
        rootfs = {"path": "/srv", "size": "32Mi"}
        return container(name, rootfs=rootfs, mounts=mounts, namespaces={"user": user})

    ids = {each: [{"container": 0, "host": 100000, "size": 65536}] for each in ("uids", "gids")}
    users = [mounting("z", "host"), mounting("b", "auto"), mounting("c", ids)]
    users += [mounting("reader", "host", readOnly=True), container("a", mounts=[{"volume": "data"}])]
    wishes, _ = resolve(Named("i", "/run/names", "/state/spaces"), by_key(data, *users), {}, ())

    def said(key: str, mechanism: Mechanism) -> list[str]:
        aspect: Any = Volume() if key == data.key else Rootfs()
        wanted = aspect.parse(wishes[key].section(aspect.section), HYBRID)
        space = DATA if key == data.key else Space("rootfs", key)
        remarks = aspect.remarks(wanted, Seen(space, replace(LIVE, mechanism=mechanism), ROOM))
        return [f"{each.type} {each.reason} {each.message.split(':')[0]}" for each in remarks]

    assert said(data.key, "projectQuota") == ["Limited Evadable a, z"]
    assert said(data.key, "loopImage") == []
    assert said("z", "projectQuota") == ["Limited Evadable this container"]
    assert said("b", "projectQuota") == said("c", "projectQuota") == said("z", "loopImage") == []


def test_what_is_kept_loses_no_more_than_its_mount() -> None:
    subject = Subject("volume/data", "", 0, None, 0)

    def removal(live: SpaceSeen) -> list[str]:
        return [each.kind for each in Volume().remove(subject, Seen(DATA, live))]

    assert removal(LIVE) == ["UnmountSpace"]
    assert removal(replace(LIVE, mounted=False)) == []
    assert removal(replace(LIVE, mechanism="projectQuota")) == [], (
        "where nothing is mounted, nothing is unmounted"
    )
    assert removal(replace(LIVE, keep=False)) == ["RemoveSpace"]
    assert removal(SpaceSeen(half=True)) == ["RemoveSpace"]
    assert removal(SpaceSeen()) == []


def test_a_layers_space_goes_when_nobody_lives_in_it() -> None:
    plain = Rootfs().parse({"path": "/srv"}, HYBRID)
    seen = Seen(Space("rootfs", "web"), LIVE)
    assert Rootfs().diff(Subject("web", "", 7, None, 0), plain, seen) == []
    (step,) = Rootfs().diff(Subject("web", "", 0, None, 0), plain, seen)
    assert (step.kind, step.effect) == ("RemoveSpace", Effect.RECREATE)


def test_a_size_is_live_and_whether_there_is_one_is_not() -> None:
    def digest(**more: str) -> str:
        part = Rootfs().parse({"path": "/srv", **more}, HYBRID)
        return compose([("rootfs", Rootfs().birth(part))]).frame_digest

    assert digest(size="1Gi") == digest(size="2Gi") != digest()


def test_sizes_are_whole_blocks_and_not_too_small() -> None:
    assert parse_size("16Mi") == LEAST
    assert parse_size("17000001") == 17000001 // 4096 * 4096
    with pytest.raises(ValueError, match="at least 16Mi"):
        parse_size("16M")


def test_containers_need_their_volumes_and_keep_them() -> None:
    data = volume("data", size="1Gi")
    web = container("web", mounts=[{"volume": "data", "target": "/a"}, {"volume": "data", "target": "/b"}])
    assert users(data, [web, container("other")]) == (web,)
    (found,) = misfits(by_key(web), {}, "")
    assert (found.path, found.why) == ("spec.mounts", 'mounts volume "data", which no valid file defines')
    wishes, _ = resolve(Named("i", "/run/names", "/state/spaces"), by_key(data, web), {}, ())
    assert wishes["web"].needs == {"volume/data"}
    assert wishes["volume/data"].section("volume")["users"] == ["web"]
    mounts = Mounts().parse(wishes["web"].section("mounts"), HYBRID)
    assert mounts
    assert {each.source for each in mounts} == {content_path("/state/spaces", DATA)}
    assert Mounts().birth(mounts).root == {"volumes": {"data": content_path("/state/spaces", DATA)}}


def test_where_a_volume_is_restarts_nobody() -> None:
    def digest(spaces: str) -> str:
        written = {"volume": "data", "target": "/a", "source": spaces}
        part = Mounts().parse([written], HYBRID)
        assert part
        return compose([("mounts", Mounts().birth(part))]).digest

    assert digest("/here") == digest("/there")
