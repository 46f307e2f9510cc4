"""Devices without a device: rules, the program for v2, matching in a made-up sysfs, the aspect and its section."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.aspects._base import Subject
from controller.aspects.devices import Devices, Seen
from controller.errors import HostLacks
from controller.host.cgroups.device_program import INSTRUCTION, program, program_name
from controller.host.hardware import SysfsHardware
from controller.host.uevents import _concerns_nodes
from controller.model.device import (
    ANY,
    DEFAULT,
    HostNode,
    Match,
    Node,
    NodeSeen,
    Rule,
    canonical,
    difference,
    nodes_for,
    parse_rules,
    rules_for,
    words,
)
from controller.model.record import Record, StopRule
from controller.spec.parse import parse
from tests.worlds import facts

FUSE = Rule("c", 10, 229, "rw")
TUN = Rule("c", 10, 200, "rw")
SUBJECT = Subject("web", "/masu/test/web", pid=7, record=None, now_ms=0)


# --- rules ---


def test_rules_are_read_as_they_are_written() -> None:
    assert parse_rules("".join(f"{each}\n" for each in DEFAULT)) == DEFAULT
    assert parse_rules("b *:* m\nc 136:* rwm\n") == (Rule("b", ANY, ANY, "m"), Rule("c", 136, ANY, "rwm"))
    assert parse_rules("") == ()
    assert parse_rules("a *:* rwm\n") is None


def test_rights_to_one_device_add_up_in_the_kernels_order() -> None:
    both = [Rule("c", 1, 2, "w"), Rule("c", 1, 2, "mr"), Rule("b", 1, 2, "r")]
    assert canonical(both) == (Rule("b", 1, 2, "r"), Rule("c", 1, 2, "rwm"))


RIGHTS = ["", *("".join(each) for count in (1, 2, 3) for each in itertools.combinations("rwm", count))]


@pytest.mark.parametrize(("live", "wanted"), list(itertools.product(RIGHTS, RIGHTS)))
def test_a_difference_says_no_more_than_what_differs(live: str, wanted: str) -> None:
    """Applied with more allowed first, what is in both is in force all the time."""

    def rules(access: str) -> tuple[Rule, ...]:
        return canonical([*DEFAULT, *([Rule("c", 10, 229, access)] if access else [])])

    allowed, denied = difference(rules(live), rules(wanted))
    between = canonical([*rules(live), *allowed])
    assert {*live} | {*wanted} == {right for each in between if each.major == 10 for right in each.access}
    assert difference(between, rules(wanted)) == ((), denied)
    assert all(each.major == 10 for each in (*allowed, *denied))


def test_words_are_about_what_is_not_the_default() -> None:
    assert words(DEFAULT) == "the default"
    assert words(canonical([*DEFAULT[1:], FUSE])) == "the default and c 10:229 rw without c 1:3 rwm"


# --- the program ---


def test_the_program_is_tests_that_jump_ahead_to_the_next_rule() -> None:
    """Every jump lands on the beginning of a rule or on the refusal at the end, and every way ends in an answer."""
    rules = canonical([*DEFAULT, FUSE, Rule("b", ANY, ANY, "m")])
    code = list(INSTRUCTION.iter_unpack(program(rules)))
    exits = [at for at, each in enumerate(code) if each[0] == 0x95]
    starts = {at + 1 for at in exits}
    lands = {at + 1 + each[2] for at, each in enumerate(code) if each[0] == 0x55}
    assert len(exits) == len(rules) + 1
    assert lands <= starts
    assert max(lands) == exits[-2] + 1, "the last rule's tests lead to the refusal"
    assert [code[at - 1][3] for at in exits] == [1] * len(rules) + [0]
    assert exits[-1] == len(code) - 1


def test_only_what_is_not_any_is_tested() -> None:
    everything, one = (Rule("c", ANY, ANY, "rwm"),), (Rule("c", 10, 229, "r"),)
    texts = [program(each) for each in (everything, one)]
    assert [sum(each[0] == 0x55 for each in INSTRUCTION.iter_unpack(text)) for text in texts] == [1, 4]


def test_a_programs_name_tells_its_rules() -> None:
    names = {
        program_name(each) for each in (DEFAULT, canonical([*DEFAULT, FUSE]), canonical([*DEFAULT, TUN]))
    }
    assert len(names) == 3
    assert all(len(each) == 15 and each.startswith("masu_") for each in names)


# --- matching ---


class Sysfs:
    """A made-up /sys in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "kernel").mkdir()
        self.seqnum(1)

    def seqnum(self, number: int) -> None:
        (self.root / "kernel/uevent_seqnum").write_text(f"{number}\n")

    def files(self, path: str, **texts: str) -> Path:
        directory = self.root / "devices" / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(f"{text}\n")
        return directory

    def driver(self, path: str, name: str) -> None:
        (self.files(path) / "driver").symlink_to(f"../../bus/drivers/{name}")

    def node(self, path: str, subsystem: str, numbers: str, devname: str) -> None:
        major, minor = numbers.split(":")
        made = self.files(path, dev=numbers, uevent=f"MAJOR={major}\nMINOR={minor}\nDEVNAME={devname}")
        kind = "block" if subsystem == "block" else "char"
        for place, name in ((f"class/{subsystem}", made.name), (f"dev/{kind}", numbers)):
            (self.root / place).mkdir(parents=True, exist_ok=True)
            (self.root / place / name).symlink_to(made)
        (made / "subsystem").symlink_to(f"../../class/{subsystem}")


HUB, ADAPTER = "pci0000:00/0000:00:14.0/usb1/1-1", "pci0000:00/0000:00:14.0/usb1/1-1/1-1.2"
TTY = HostNode("ttyUSB0", "c", 188, 0)
NVME = HostNode("nvme0n1p1", "b", 259, 1)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A USB-serial adapter behind a hub, an NVMe disk, and what hangs on nothing."""
    made = Sysfs(tmp_path)
    made.files("pci0000:00/0000:00:14.0", vendor="0x8086", device="0xa36d")
    made.files(HUB, idVendor="05e3", idProduct="0610", serial="HUB")
    made.files(ADAPTER, idVendor="0403", idProduct="6001", serial="A50285BI")
    made.driver(f"{ADAPTER}/1-1.2:1.0", "ftdi_sio")
    made.node(f"{ADAPTER}/1-1.2:1.0/ttyUSB0/tty/ttyUSB0", "tty", "188:0", "ttyUSB0")
    made.node("virtual/tty/tty0", "tty", "4:0", "tty0")
    made.files("pci0000:00/0000:01:00.0", vendor="0x144d", device="0xa808")
    made.files("pci0000:00/0000:01:00.0/nvme/nvme0", serial="S4EW", model="Samsung")
    made.node("pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", "block", "259:1", "nvme0n1p1")
    made.node("virtual/block/loop7", "block", "7:7", "loop7")
    return made


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"subsystem": "tty", "vendor": "0403"}, [TTY]),
        ({"vendor": "0403", "product": "6001", "serial": "A50285BI"}, [TTY]),
        ({"driver": "ftdi_sio"}, [TTY]),
        ({"name": "ttyUSB*"}, [TTY]),
        ({"subsystem": "tty", "vendor": "05e3"}, []),
        ({"subsystem": "tty", "vendor": "0403", "serial": "HUB"}, []),
        ({"subsystem": "tty", "vendor": "8086"}, []),
        ({"subsystem": "block", "vendor": "144D", "serial": "S4EW"}, [NVME]),
        ({"subsystem": "block"}, [HostNode("loop7", "b", 7, 7), NVME]),
        ({"name": "loop7"}, [HostNode("loop7", "b", 7, 7)]),
        ({"name": "loop"}, []),
        ({"subsystem": "hidraw"}, []),
    ],
)  # fmt: skip
def test_all_that_is_written_must_be_so_of_the_nearest_device(
    sysfs: Sysfs, written: dict[str, str], found: list[HostNode]
) -> None:
    assert list(SysfsHardware(str(sysfs.root)).matching(Match.of(written))) == found


def test_what_was_found_holds_until_the_kernel_tells_of_a_device(sysfs: Sysfs) -> None:
    hardware, wanted = SysfsHardware(str(sysfs.root)), Match(subsystem="tty", name="ttyUSB*")
    assert hardware.matching(wanted) == (TTY,)
    sysfs.node("virtual/tty/ttyUSB1", "tty", "188:1", "ttyUSB1")
    assert hardware.matching(wanted) == (TTY,)
    sysfs.seqnum(2)
    assert [each.name for each in hardware.matching(wanted)] == ["ttyUSB0", "ttyUSB1"]


def test_a_device_that_is_being_removed_is_not_there(sysfs: Sysfs) -> None:
    (sysfs.root / "devices/virtual/block/loop7/dev").unlink()
    assert SysfsHardware(str(sysfs.root)).matching(Match(name="loop7")) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"add@/devices/virtual/block/loop7\0ACTION=add\0MAJOR=7\0MINOR=7\0", True),
        (b"bind@/devices/usb1/1-1:1.0\0ACTION=bind\0DRIVER=ftdi_sio\0", True),
        (b"add@/devices/virtual/net/veth0\0ACTION=add\0INTERFACE=veth0\0", False),
    ],
)
def test_links_of_networks_nudge_nobody(text: bytes, told: bool) -> None:
    assert _concerns_nodes(text) is told


# --- the aspect ---


def _claims(*written: dict[str, Any]) -> Any:
    return Devices().parse(list(written), facts("v1"))


def test_a_claim_has_defaults_and_one_form() -> None:
    (claim,) = _claims({"path": "/dev//net/tun", "access": "wr"})
    assert (claim.path, claim.place, claim.access) == ("/dev/net/tun", "net/tun", "rw")
    assert (claim.mode, claim.owner, claim.optional) == (0o660, (0, 0), False)
    assert Devices().parse(None, facts("v2")) == (), "the rules are owned all the same"


def test_places_are_the_hosts_names_or_what_is_written() -> None:
    written = [{"path": "/srv/odd"}, {"match": {"name": "tty*"}, "as": "serial/"}, {"match": {"name": "t*"}}]
    odd = HostNode("odd", "c", 9, 9)
    found = tuple(zip(_claims(*written), ((odd,), (TTY,), (TTY,)), strict=True))
    assert [each.place for each in nodes_for(found)] == ["odd", "serial/ttyUSB0", "ttyUSB0"]
    assert difference(DEFAULT, rules_for(found))[0] == (Rule("c", 9, 9, "rw"), Rule("c", 188, 0, "rw"))


def _host(state: str | Exception | None, present: HostNode | None, seen: dict[str, NodeSeen]) -> Any:
    def rules(group: str, wanted: Any) -> str | None:
        if isinstance(state, Exception):
            raise state
        return state

    return SimpleNamespace(
        hardware=SimpleNamespace(at=lambda path: present),
        device_rules=SimpleNamespace(state=rules),
        nodes=SimpleNamespace(look=lambda name, pid, places: {**dict.fromkeys(places, NOTHING), **seen}),
    )


NOTHING = NodeSeen(ours=False, node=None)
LIVE = HostNode("fuse", "c", 10, 229)
RIGHT = Node("fuse", "c", 10, 229, 0o660, 0, 0)
ASKED = {"path": "/dev/fuse"}


@pytest.mark.parametrize(
    ("written", "state", "present", "seen", "steps", "broken"),
    [
        ([], "", None, {}, [], []),
        ([], None, None, {}, ["SetDeviceRules"], []),
        ([ASKED], "the default", LIVE, {}, ["SetDeviceRules", "PutNode"], []),
        ([ASKED], "", LIVE, {"fuse": NodeSeen(True, RIGHT)}, [], []),
        ([ASKED], "", LIVE, {"fuse": NodeSeen(False, RIGHT)}, ["PutNode"], []),
        ([ASKED], "", LIVE, {"fuse": NodeSeen(True, Node("fuse", "c", 10, 229, 0o666, 0, 0))}, ["PutNode"], []),
        ([ASKED], "", LIVE, {"fuse": NodeSeen(False, None, "a file is there")}, [], ["PlaceTaken"]),
        ([ASKED], "", None, {}, [], ["NoDevice"]),
        ([{**ASKED, "optional": True}], "", None, {}, [], []),
        ([], "", None, {"fuse": NodeSeen(True, RIGHT)}, ["TakeNode"], []),
        ([], "", None, {"own": NodeSeen(False, Node("own", "c", 1, 3, 0o666, 0, 0))}, [], []),
        ([], HostLacks("no BPF"), None, {}, [], []),
    ],
)  # fmt: skip
def test_what_a_look_comes_to(
    written: list[Any], state: Any, present: Any, seen: Any, steps: list[str], broken: list[str]
) -> None:
    aspect, claims = Devices(), _claims(*written)
    observed = aspect.observe(SUBJECT, _host(state, present, seen), claims)
    assert [each.kind for each in aspect.diff(SUBJECT, claims, observed)] == steps
    assert [each.reason for each in aspect.verify(claims, observed)] == broken
    lacking = [each.reason for each in aspect.remarks(claims, observed)]
    assert lacking == (["NoDeviceRules"] if isinstance(state, Exception) else [])


def test_rules_that_follow_a_device_are_no_repair() -> None:
    """Eight devices plugged in at once are no fight."""
    aspect, claims = Devices(), _claims(ASKED)
    rules, _ = aspect.diff(SUBJECT, claims, aspect.observe(SUBJECT, _host("the default", LIVE, {}), claims))
    assert rules.change is None
    there = _host("the default", LIVE, {"fuse": NodeSeen(True, RIGHT)})
    (alone,) = aspect.diff(SUBJECT, claims, aspect.observe(SUBJECT, there, claims))
    assert alone.change == ("devices.rules", "the default", "the default and c 10:229 rw")


def test_a_container_that_is_asked_to_stop_keeps_its_devices() -> None:
    record = Record("web", "", "", "stopping", "boot", StopRule(15, 1000))
    leaving = Subject("web", "/masu/test/web", pid=7, record=record, now_ms=0)
    seen = Seen(differs="everything", nodes={"fuse": NodeSeen(True, RIGHT)})
    assert Devices().diff(leaving, (), seen) == []


# --- the section ---


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("[{path: /dev/null}]", "/dev/null is there in every container"),
        ("[{path: /dev/fuse, as: pts/7}]", "/dev/pts/7 is there in every container"),
        ("[{path: /dev/fuse}, {path: /dev/cuse, as: fuse}]", "/dev/fuse is already a device"),
        ("[{path: /dev/fuse, as: ../x}]", "not a place below /dev"),
        ("[{path: /dev/fuse, access: rr}]", "not an access"),
        ("[{path: /dev/fuse, mode: '888'}]", "not an octal mode"),
        ("[{match: {vendor: '403'}}]", "four hexadecimal digits"),
        ("[{match: {name: a}, path: /dev/fuse}]", "either path or match"),
        ("[{optional: true}]", "path"),
        ("[{match: {}}]", "match"),
        ("[{path: /dev/fuse}]\n  mounts: [{source: /dev, target: /dev}]", "/dev of the container's own"),
    ],
)
def test_a_wrong_section_is_told(section: str, said: str) -> None:
    text = f"""apiVersion: masu/v1
kind: Container
metadata: {{name: web}}
spec:
  rootfs: {{path: /srv}}
  process: {{args: [/bin/true]}}
  devices: {section}
"""
    with pytest.raises(Exception, match=said):
        parse(text.encode(), "web.yaml")
