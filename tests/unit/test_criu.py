"""What is pure about dumps and restores: CRIU's protocol, which mounts it keeps, how it is called."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import LaunchFailed
from controller.host import criu_rpc
from controller.host.criu_ended import Notes
from controller.host.criu_features import errors_in
from controller.host.criu_mended import Ice
from controller.host.criu_mounts import held, parse_mountinfo, sorted_options, staging
from controller.host.criu_recipe import restore_recipe
from controller.host.criu_stuck import has_ended
from controller.host.criu_timers import A_LIFETIME_S, mended_core, mended_file
from controller.host.proc_stat import stat_of
from controller.model.dump import Layout, MountHeld, RestoreOrder
from controller.model.launch import Init, LaunchRecipe

MOUNTINFO = """\
191 131 0:42 / / rw,relatime - overlay overlay rw
192 191 0:88 / /proc rw,nosuid - proc proc rw
193 191 0:89 / /dev rw,nosuid - tmpfs tmpfs rw,mode=755
194 193 0:90 / /dev/pts rw - devpts devpts rw
195 193 0:91 / /dev/shm rw - tmpfs shm rw
197 191 0:98 / /sys ro - sysfs sysfs ro
198 191 254:0 /srv/w\\040w /www ro - ext4 /dev/vda rw
199 191 0:50 / /host-tmp rw - tmpfs tmpfs rw
200 192 0:6 /null /proc/keys ro - devtmpfs devtmpfs rw
201 192 0:88 /bus /proc/bus ro - proc proc rw
202 193 0:89 /null /dev/console rw - tmpfs tmpfs rw,mode=755
"""

CONFIG: dict[str, Any] = {
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/www", "type": "bind", "source": "/srv/w", "options": ["rbind", "ro", "rro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "uid=5"]},
    ],
    "linux": {
        "maskedPaths": ["/proc/keys", "/proc/acpi"],
        "namespaces": [{"type": "network", "path": "/run/masu/i/netns/web"}, {"type": "cgroup"}],
    },
}
IDS = {"ids": {"uids": [(0, 1000, 10)], "gids": [(0, 2000, 10)]}}


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 2**63) | st.binary(max_size=300))))
def test_what_is_encoded_is_decoded(fields: list[tuple[int, int | bytes]]) -> None:
    expected: dict[int, tuple[int | bytes, ...]] = {}
    for number, value in fields:
        expected[number] = (*expected.get(number, ()), value)
    assert criu_rpc.decode(criu_rpc.encode(fields)) == expected


@given(st.binary(max_size=100))
def test_nonsense_is_an_error_and_never_a_hang(data: bytes) -> None:
    try:
        criu_rpc.decode(data)
    except ValueError:
        return


def converse(answers: list[bytes], frozen: Any) -> tuple[list[bytes], Any]:
    """What masu says to a CRIU that says this, and what comes of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[bytes] = []

    def criu() -> None:
        for each in answers:
            heard.append(theirs.recv(65536))
            theirs.send(each)
        theirs.close()

    thread = threading.Thread(target=criu)
    thread.start()
    try:
        return heard, criu_rpc.converse(ours, b"asked", 5, frozen, lambda: None)
    finally:
        thread.join()
        ours.close()


def notify(script: bytes) -> bytes:
    return criu_rpc.encode([(1, criu_rpc.NOTIFY), (2, 1), (5, criu_rpc.encode([(1, script)]))])


def test_the_caller_is_called_once_when_the_images_are_complete() -> None:
    calls: list[int] = []
    done = criu_rpc.encode([(1, criu_rpc.DUMP), (2, 1)])
    heard, answer = converse([notify(b"pre-dump"), notify(b"post-dump"), done], lambda: calls.append(1))
    assert (calls, answer.success) == ([1], True)
    assert heard[1:] == [criu_rpc.encode([(1, criu_rpc.NOTIFY), (3, 1)])] * 2


def test_what_the_caller_raises_is_told_to_criu_first() -> None:
    def fail() -> None:
        raise LaunchFailed("no space")

    done = criu_rpc.encode([(1, criu_rpc.DUMP), (2, 0)])
    heard, answer = converse([notify(b"post-dump"), done], fail)
    assert heard[-1] == criu_rpc.encode([(1, criu_rpc.NOTIFY), (3, 0)])
    assert isinstance(answer.failure, LaunchFailed)


def test_a_criu_that_ends_is_no_answer() -> None:
    with pytest.raises(criu_rpc.Broken):
        converse([notify(b"post-dump")], lambda: None)


@pytest.mark.parametrize("later", [0, 1])
def test_a_process_that_is_no_criu_is_not_ended(tmp_path: Path, later: int) -> None:
    """Whoever has got its pid since, and whoever is noted by mistake: here it is the test itself."""
    notes, stat = Notes(str(tmp_path / "web.json"), "boot"), stat_of(os.getpid())
    assert stat
    who = {"pid": stat.pid, "start_time": stat.start_time + later, "boot_id": "boot"}
    (tmp_path / "web.json").write_text(json.dumps({**who, "init": {"pid": stat.pid, "start_time": 0}}))
    assert notes.end(cast("Ice", None)) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_note_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text('{"pid": 1')
    assert Notes(str(tmp_path / "web.json"), "boot").end(cast("Ice", None)) == ()


def test_an_init_that_has_ended_is_told_from_one_that_runs() -> None:
    stat = stat_of(os.getpid())
    assert stat
    assert not has_ended(Init(stat.pid, stat.start_time))
    assert has_ended(Init(stat.pid, stat.start_time + 1))
    with subprocess.Popen(["true"]) as child:
        born = stat_of(child.pid)
        assert born
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(Init(child.pid, born.start_time)), "a zombie does nothing any more"


def test_the_first_error_is_the_cause() -> None:
    log = (
        "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
        "Error (criu/files-reg.c:1): Can't open /x\nError (criu/cr-dump.c:1): Dumping FAILED.\n"
    )
    assert errors_in(log) == "Can't open /x"


def kept(bare: frozenset[str]) -> dict[str, bool]:
    """Mount → whether it is external."""
    found = held(parse_mountinfo(MOUNTINFO), ["254:0", "0:6", "0:50"], {}, bare, lambda _: True)
    return {each.at: each.external for each in found}


def test_an_empty_tmpfs_is_left_out_with_what_is_bound_from_it() -> None:
    found = kept(frozenset({"/dev", "/dev/shm"}))
    inside = {"/proc", "/proc/bus", "/dev/pts"}
    assert {at for at, external in found.items() if not external} == inside


def test_a_tmpfs_with_contents_is_criu_s_and_one_of_the_host_s_never() -> None:
    found = kept(frozenset())
    assert not found["/dev"]
    assert not found["/dev/shm"]
    assert not found["/dev/console"]
    assert found["/host-tmp"]
    assert found["/www"], found


def layout(*mounts: tuple[str, bool]) -> Layout:
    return Layout(tuple(MountHeld(at, at, True, is_dir) for at, is_dir in mounts), (11, 12))


def operations(*mounts: tuple[str, bool], root: dict[str, Any]) -> list[dict[str, Any]]:
    return list(staging(layout(*mounts), CONFIG, root, "/s", "/net")[0])[1:]


def test_a_volume_comes_from_where_the_specification_says_now() -> None:
    found = operations(("/www", True), ("/www/below", True), root={})
    assert [(each["source"], each["below"]) for each in found] == [("/srv/w", ""), ("/srv/w", "/below")]
    assert [each["flags"] for each in found] == [["ro", "ro"]] * 2


def test_what_is_hidden_stays_hidden_and_cannot_be_written() -> None:
    assert operations(("/proc/keys", False), ("/proc/acpi", True), root={}) == [
        {"op": "stage", "source": "/dev/null", "below": "", "target": "/s/0", "flags": []},
        {"op": "stage", "source": "", "below": "", "target": "/s/1", "flags": ["ro"]},
    ]


def test_a_tmpfs_is_owned_by_who_is_root_inside() -> None:
    dev, tmp = operations(("/dev", True), ("/tmp", True), root=IDS)
    assert dev["data"] == "mode=755,uid=1000,gid=2000"
    assert dev["devices"]["null"] == [1, 3]
    assert tmp["data"] == "uid=1005,gid=2000"
    assert not tmp["devices"]


def test_a_mount_that_the_specification_no_longer_has_is_refused() -> None:
    with pytest.raises(LaunchFailed, match="/gone"):
        operations(("/gone", True), root={})


def test_options_are_flags_or_the_file_system_s() -> None:
    assert sorted_options(["rbind", "rw", "rnosuid", "relatime", "size=5", "rprivate"]) == (
        ["nosuid", "relatime"],
        ["size=5"],
    )


BASE = LaunchRecipe(
    "web", ("crun",), {}, "/b", ("/cg/cgroup.procs",), (), "/b/pid", "/cg", 1, offsets={"b": 1}
)


def recipe(config: dict[str, Any], root: dict[str, Any]) -> LaunchRecipe:
    order = RestoreOrder("web", "/masu/i/web", root, "/img", 5000)
    return restore_recipe("/criu", order, BASE, (), config, layout(("/www", True)), "/kdat")


def test_a_restore_takes_the_place_of_a_launch() -> None:
    found = recipe(CONFIG, {})
    line = " ".join(found.argv)
    assert "--external mnt[/www]:/b/stage/0" in line
    assert "--inherit-fd fd[1]:pipe:[11] --inherit-fd fd[2]:pipe:[12]" in line
    assert "--tcp-established" in line
    assert [each["op"] for each in found.to_json()["mounts"]][-3:] == ["network", "cgroups", "features"]
    assert (found.join, found.offsets, found.timeout_ms) == (BASE.join, {}, 5000)


def test_connections_are_closed_where_a_user_namespace_bars_them() -> None:
    assert "--tcp-close" in recipe(CONFIG, IDS).argv


def test_a_pid_namespace_of_another_container_is_refused() -> None:
    linux = {**CONFIG["linux"], "namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}
    with pytest.raises(LaunchFailed, match="pid namespace"):
        recipe({**CONFIG, "linux": linux}, {})


def test_a_layout_survives_its_file() -> None:
    whole = layout(("/a", True), ("/b", False))
    assert Layout.from_json(whole.to_json()) == whole
    with pytest.raises(ValueError, match="version 2"):
        Layout.from_json({**whole.to_json(), "version": 2})


@pytest.mark.parametrize("place", ["a", "", "/a/../../etc", "/..", "/a/", "//a", "/./a", "/a\0b", 7, None])
@pytest.mark.parametrize("which", [0, 1])
def test_a_layout_leads_nowhere_else(place: Any, which: int) -> None:
    """It may have come in an archive, and a restore makes directories by it."""
    value = layout(("/a", True)).to_json()
    value["mounts"][0][which] = place
    with pytest.raises(ValueError, match="not a place"):
        Layout.from_json(value)


def timerfd(ticks: int, left_ns: int, every_ns: int) -> bytes:
    values = (9, 2050, b"", 1, ticks, 0, 0, left_ns, 0, every_ns)
    return criu_rpc.encode([(1, 17), (2, 9), (12, criu_rpc.encode(enumerate(values, start=1)))])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (timerfd(1, 0, 500), timerfd(1, 1, 500)),
        (timerfd(0, 300, 500), timerfd(0, 300, 500)),
        (timerfd(0, 0, 500), timerfd(0, 0, 500)),
        (timerfd(1, 0, 0), timerfd(1, 0, 0)),
        (criu_rpc.encode([(1, 1), (2, 9)]), criu_rpc.encode([(1, 1), (2, 9)])),
    ],
    ids=["ran out", "runs", "off", "once", "no timer"],
)
def test_a_timer_that_repeats_and_has_run_out_is_started_again(before: bytes, after: bytes) -> None:
    assert mended_file(before) == after


def core(*timers: tuple[int, int, int, int]) -> bytes:
    encoded = [criu_rpc.encode(enumerate(each, start=1)) for each in timers]
    return criu_rpc.encode(
        [(1, 1), (3, criu_rpc.encode([(1, 1), (7, criu_rpc.encode(enumerate(encoded, start=1)))])), (5, b"x")]
    )


def test_an_alarm_that_comes_once_is_not_taken_for_none() -> None:
    off, repeats = (0, 0, 0, 0), (0, 20, 0, 7)
    assert mended_core(core((0, 0, 30, 5), off, repeats)) == core((A_LIFETIME_S, 0, 30, 5), off, repeats)
    thread = criu_rpc.encode([(1, 1), (5, b"x")])
    assert [mended_core(each) for each in (core(off, repeats, off), thread)] == [
        core(off, repeats, off),
        thread,
    ]
