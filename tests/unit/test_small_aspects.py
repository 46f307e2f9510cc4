"""Aspects whose diff fits in one line each: existence, host name, sysctls, mounts, namespaces, freezer, process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.aspects._base import Subject
from controller.aspects._bundle import compose, merge
from controller.aspects.cgroup import Cgroup, Placed
from controller.aspects.hostname import Hostname
from controller.aspects.io import SharedIo
from controller.aspects.mounts import Mounts
from controller.aspects.namespaces import Namespaces, Seen
from controller.aspects.process import Process
from controller.aspects.rootfs import Rootfs
from controller.aspects.state import State
from controller.aspects.sysctls import Sysctls
from controller.errors import HostLacks
from controller.model.frame import IdMapping, resolve
from controller.model.process import IdMap, IdRange, MountSeen
from controller.model.record import Record
from tests.worlds import facts

HYBRID = facts("hybrid")
RECORD = Record("web", "d", "f", "running", "boot", pid=7, start_time=70)
SUBJECT = Subject("web", "/masu/test/web", 7, RECORD, 0)
OWN = {"mnt": 1, "net": 2, "pid": 3, "ipc": 4, "uts": 5, "user": 6, "cgroup": 7, "time": 8}
PRIVATE = {"mnt": 11, "net": 12, "pid": 13, "ipc": 14, "uts": 15, "user": 6, "cgroup": 17, "time": 8}


HOME = dict.fromkeys((each.mount for each in HYBRID.hierarchies), SUBJECT.group)
HOMES = {mount: (path,) for mount, path in HOME.items()}


def cgroup_steps(section: dict[str, Any], placed: Placed) -> list[tuple[str, str]]:
    desired = Cgroup().parse(section, HYBRID)
    assert desired
    return [(step.kind, step.text) for step in Cgroup().diff(SUBJECT, desired, placed)]


def test_cgroup_missing_in_one_hierarchy_is_made() -> None:
    assert cgroup_steps({}, Placed(HOMES, HOME)) == []
    some = {mount: paths for mount, paths in HOMES.items() if "pids" not in mount}
    assert cgroup_steps({}, Placed(some, HOME)) == [
        ("CreateCgroup", "create cgroup /masu/test/web in 1 hierarchy")
    ]


def test_strayed_init_is_brought_home_and_a_child_group_is_home() -> None:
    below = dict.fromkeys(HOME, SUBJECT.group + "/inner")
    assert cgroup_steps({}, Placed(HOMES, below)) == []
    for stray in ("/", SUBJECT.group + "2"):
        away = {**below, "/sys/fs/cgroup/pids": stray}
        assert [kind for kind, _ in cgroup_steps({}, Placed(HOMES, away))] == ["MoveProcesses"]


IN_BUDGET = "/masu/test/@batch/web"


def test_a_container_moves_into_a_budget_and_out_of_it() -> None:
    """Only in the hierarchy that counts what is shared."""
    inside = {**HOME, "/sys/fs/cgroup/pids": IN_BUDGET}
    homes = {**HOMES, "/sys/fs/cgroup/pids": (IN_BUDGET,)}
    shares = {"budgets": {"pids": "batch"}}
    text = "move the cgroup into group batch (1 hierarchy)"
    assert cgroup_steps(shares, Placed(HOMES, HOME)) == [("MoveCgroup", text)]
    assert cgroup_steps(shares, Placed(homes, inside)) == []
    assert [kind for kind, _ in cgroup_steps({}, Placed(homes, inside))] == ["MoveCgroup"]


def test_an_interrupted_move_goes_on_whoever_is_left_behind() -> None:
    inside = {**HOME, "/sys/fs/cgroup/pids": IN_BUDGET}
    both = {**HOMES, "/sys/fs/cgroup/pids": (SUBJECT.group, IN_BUDGET)}
    for homes, init in ((HOMES, inside), (both, HOME), (both, inside)):
        assert [kind for kind, _ in cgroup_steps({}, Placed(homes, init))] == ["MoveCgroup"]


def test_a_budget_is_only_where_it_counts() -> None:
    desired = Cgroup().parse({"counts": ["memory"]}, HYBRID)
    assert desired
    assert desired.budgets == {"/sys/fs/cgroup/memory": ""}


def test_hostname() -> None:
    assert Hostname().diff(SUBJECT, "a", "a") == []
    assert Hostname().diff(SUBJECT, "a", None) == []
    assert [step.text for step in Hostname().diff(SUBJECT, "a", "b")] == ["set hostname: b → a"]


def test_sysctls_compare_words_and_need_a_process() -> None:
    desired = Sysctls().parse({"net.ipv4.tcp_rmem": "1\t2   3"}, HYBRID)
    assert desired == {"net.ipv4.tcp_rmem": "1 2 3"}
    assert Sysctls().diff(SUBJECT, desired, {"net.ipv4.tcp_rmem": "1 2 3"}) == []
    assert Sysctls().diff(SUBJECT, desired, {}) == []
    assert len(Sysctls().diff(SUBJECT, desired, {"net.ipv4.tcp_rmem": "1 2 4"})) == 1


def _mounted(kind: str, options: str, *, shows: bool | None = None) -> MountSeen:
    return MountSeen(kind, frozenset(options.split(",")), shows)


X = _mounted("ext4", "ro,nosuid,nodev", shows=True)
T = _mounted("tmpfs", "rw,nosuid,nodev")


@pytest.mark.parametrize(
    ("live", "steps"),
    [
        ({"/x": X, "/t": T}, []),
        ({"/x": replace(X, shows=None), "/t": T}, []),
        ({"/t": T}, ["MountInside"]),
        ({}, ["MountInside", "MountInside"]),
        ({"/x": replace(X, options=frozenset({"rw", "nosuid", "nodev"})), "/t": T}, ["SetMountOptions"]),
        ({"/x": replace(X, options=frozenset({"ro", "nodev"})), "/t": T}, ["SetMountOptions"]),
        ({"/x": replace(X, shows=False), "/t": T}, ["UnmountInside"]),
        ({"/x": X, "/t": _mounted("ext4", "rw,nosuid,nodev")}, ["UnmountInside"]),
        (None, []),
    ],
)
def test_mounts_are_put_right_and_never_stacked(live: dict[str, MountSeen] | None, steps: list[str]) -> None:
    written = [{"source": "/a", "target": "//x/./", "readOnly": True}, {"tmpfs": "/t/"}]
    desired = Mounts().parse(written, HYBRID)
    assert desired
    assert [step.kind for step in Mounts().diff(SUBJECT, desired, live)] == steps


def _seen(**changes: object) -> Seen:
    base = Seen(OWN, PRIVATE, {}, IdMap((), (), ()), None, loopback=True)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_namespaces_as_asked_need_nothing() -> None:
    desired = Namespaces().parse(None, HYBRID)
    assert Namespaces().diff(SUBJECT, desired, _seen()) == []
    assert Namespaces().verify(desired, _seen()) == []
    assert Namespaces().diff(SUBJECT, desired, None) == []


def test_namespaces_that_are_not_as_asked_are_told() -> None:
    desired = Namespaces().parse(None, HYBRID)
    shared = {**PRIVATE, "net": OWN["net"]}
    assert [each.key for each in Namespaces().verify(desired, _seen(container=shared))] == ["namespaces.net"]


def test_id_map_and_clocks_are_verified() -> None:
    desired = Namespaces().parse({"user": "auto", "time": {"boottime": "10d"}}, HYBRID)
    lease = IdRange(600_000_000, 65536)
    day = 86_400_000_000_000
    rows = ((0, 600_000_000, 65536),)
    fits = IdMap(rows, rows, (("boottime", 10 * day),))
    container = {**PRIVATE, "user": 16, "time": 18}
    right = _seen(container=container, ids=fits, leased=lease)
    assert Namespaces().verify(desired, right) == []
    late = replace(fits, offsets=(("boottime", 9 * day),))
    assert [d.key for d in Namespaces().verify(desired, replace(right, ids=late))] == [
        "namespaces.time.boottime"
    ]
    for other in (replace(fits, uids=((0, 1, 65536),)), replace(fits, gids=((0, 1, 65536),))):
        assert [d.key for d in Namespaces().verify(desired, replace(right, ids=other))] == ["namespaces.user"]


def test_sharers_follow_a_partner_and_loopback_is_raised() -> None:
    desired = Namespaces().parse({"net": "container:db"}, HYBRID)
    same = _seen(partners={"db": {"net": PRIVATE["net"]}})
    assert Namespaces().diff(SUBJECT, desired, same) == []
    moved = _seen(partners={"db": {"net": 99}})
    assert [step.kind for step in Namespaces().diff(SUBJECT, desired, moved)] == ["StopContainer"]
    private = Namespaces().parse(None, HYBRID)
    assert [step.kind for step in Namespaces().diff(SUBJECT, private, _seen(loopback=False))] == [
        "RaiseLoopback"
    ]


@pytest.mark.parametrize(
    ("layout", "live", "frozen"),
    [("hybrid", "0", "1"), ("v2", "0", "1"), ("v1", "THAWED", "FROZEN")],
)
def test_freezer_on_every_layout(layout: str, live: str, frozen: str) -> None:
    desired = State().parse("frozen", facts(layout))
    assert desired
    assert [step.text for step in State().diff(SUBJECT, desired, live)] == ["freeze"]
    assert State().diff(SUBJECT, desired, frozen) == []
    running = State().parse("running", facts(layout))
    assert running
    assert [step.text for step in State().diff(SUBJECT, running, frozen)] == ["thaw"]
    stopping = replace(SUBJECT, record=replace(RECORD, phase="stopping"))
    assert State().diff(stopping, desired, live) == []


def test_no_freezer_is_lacking_only_when_asked_for() -> None:
    assert State().parse("running", facts("none")) is None
    with pytest.raises(HostLacks):
        State().parse("frozen", facts("none"))


def _births(**sections: object) -> list[tuple[str, object]]:
    made = []
    for aspect in (Rootfs(), Namespaces(), Process(), Mounts(), Hostname()):
        part = aspect.parse(sections.get(aspect.name), HYBRID)  # type: ignore[attr-defined]
        if part is not None:
            made.append((aspect.name, aspect.birth(part)))  # type: ignore[attr-defined]
    return made


BASE = {"rootfs": {"path": "/srv"}, "process": {"args": ["/bin/true"]}}


def test_digests_tell_live_restart_and_recreate_apart() -> None:
    before = compose(_births(**BASE))  # type: ignore[arg-type]
    live = compose(_births(**BASE, hostname="x"))  # type: ignore[arg-type]
    assert (live.digest, live.frame_digest) == (before.digest, before.frame_digest)
    restart = compose(_births(**{**BASE, "process": {"args": ["/bin/false"]}}))  # type: ignore[arg-type]
    assert restart.digest != before.digest
    assert restart.frame_digest == before.frame_digest
    recreate = compose(_births(**{**BASE, "rootfs": {"path": "/other"}}))  # type: ignore[arg-type]
    assert recreate.frame_digest != before.frame_digest


def test_what_is_written_out_as_a_default_changes_nothing() -> None:
    before = compose(_births(**BASE))  # type: ignore[arg-type]
    spelled = {
        "rootfs": {"path": "/srv", "writable": "overlay"},
        "process": {"args": ["/bin/true"], "cwd": "/", "user": "0", "capabilities": {"drop": []}},
        "namespaces": {"net": "private", "user": "host"},
    }
    assert compose(_births(**spelled)).digest == before.digest  # type: ignore[arg-type]


def test_a_new_version_with_other_defaults_restarts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [{"source": "/a", "target": "/x"}, {"tmpfs": "/t"}]
    before = compose(_births(**BASE, mounts=mounts))  # type: ignore[arg-type]
    monkeypatch.setattr("controller.aspects.process.DEFAULT_CAPABILITIES", frozenset({"CAP_KILL"}))
    monkeypatch.setattr("controller.aspects.process.PATH", "/bin")
    monkeypatch.setattr("controller.aspects.mounts.SAFE", ("nosuid",))
    after = compose(_births(**BASE, mounts=mounts))  # type: ignore[arg-type]
    assert after.config != before.config
    assert (after.digest, after.frame_digest) == (before.digest, before.frame_digest)


def test_merge_maps_deeply_and_lists_by_appending() -> None:
    assert merge({"a": {"b": 1}, "l": [1]}, {"a": {"c": 2}, "l": [2]}) == {"a": {"b": 1, "c": 2}, "l": [1, 2]}


def test_holes_of_a_bundle_are_filled() -> None:
    spaces = [{"type": "network", "partner": "db"}, {"type": "pid"}]
    filled = resolve({"linux": {"namespaces": spaces}}, IdMapping(((0, 5, 9),), ((0, 6, 9),)), {"db": 42})
    assert filled["linux"]["namespaces"] == [{"type": "network", "path": "/proc/42/ns/net"}, {"type": "pid"}]
    assert filled["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 5, "size": 9}]


def test_capabilities_added_and_dropped() -> None:
    def names(**capabilities: list[str]) -> set[str]:
        return set(Process().parse({"args": ["x"], "capabilities": capabilities}, HYBRID)["capabilities"])

    assert names(drop=["ALL"]) == set()
    assert names(drop=["ALL"], add=["net_raw"]) == {"CAP_NET_RAW"}
    assert "CAP_SYS_ADMIN" not in names()
    assert "CAP_KILL" not in names(drop=["CAP_KILL"])


def test_disk_bandwidth_is_shared_on_v2_alone() -> None:
    section = [{"path": "/srv", "read": "1Mi/s"}]
    assert SharedIo().parse(section, facts("v2"))
    with pytest.raises(HostLacks, match="cgroup v1 cannot share disk bandwidth"):
        SharedIo().parse(section, facts("v1"))
