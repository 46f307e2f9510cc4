"""The rules about devices on the real kernel, in each form that it has: processes really open, or do not."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from controller.host import facts as host_facts
from controller.host.cgroups import bpf
from controller.host.cgroups.device_program import INSTRUCTION, program_name
from controller.host.cgroups.device_rules import DeviceRules
from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import CgroupTree
from controller.model.device import ANY, DEFAULT, EVERYTHING, Rule, canonical
from controller.model.facts import CORE, Facts

pytestmark = [pytest.mark.root, pytest.mark.on_v2]

LATENCY = "/dev/cpu_dma_latency"
FOUND = os.stat(LATENCY).st_rdev
NUMBERS = (os.major(FOUND), os.minor(FOUND))
TRY = """
import os, sys
for each in sys.argv[2:]:
    with open(each, "w") as file:
        file.write("0")
for path, flags in (("/dev/null", os.O_RDWR), (sys.argv[1], os.O_RDONLY), (sys.argv[1], os.O_WRONLY)):
    try:
        os.close(os.open(path, flags))
        print("y", end="")
    except PermissionError:
        print("n", end="")
try:
    os.mknod("/dev/shm/" + str(os.getpid()), 0o20600, os.stat(sys.argv[1]).st_rdev)
    os.unlink("/dev/shm/" + str(os.getpid()))
    print("y")
except PermissionError:
    print("n")
"""


@dataclass(frozen=True, slots=True)
class World:
    facts: Facts
    rules: DeviceRules
    group: str

    def directory(self) -> str:
        found = self.facts.hierarchy("devices") or self.facts.hierarchy(CORE)
        assert found is not None
        return found.path(self.group)

    def opens(self) -> str:
        """y or n of /dev/null, to read and to write the device, and to make a node of it; inside the group."""
        joined = Homes(self.facts).join_files(self.group)
        argv = [sys.executable, "-S", "-c", TRY, LATENCY, *joined]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _kinds() -> list[int]:
    known = host_facts.look(None).hierarchies
    return sorted({each.version for each in known if each.version == 2 or "devices" in each.subsystems})


@pytest.fixture(params=_kinds(), ids=lambda version: f"v{version}")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A group of its own; for v2 of a hybrid host, the devices subsystem is left out."""
    known = host_facts.look(None)
    if request.param == 2:
        others = tuple(each for each in known.hierarchies if "devices" not in each.subsystems)
        known = replace(known, hierarchies=others)
    tree, group = CgroupTree(Homes(known)), f"/masu/t-{secrets.token_hex(4)}/web"
    tree.place(group, dict.fromkeys((each.mount for each in known.hierarchies), ""), 0)
    try:
        yield World(known, DeviceRules(Homes(known)), group)
    finally:
        tree.remove(group, lambda: None)


def test_what_is_put_is_in_force_and_nothing_else(world: World) -> None:
    assert world.rules.state(world.group, DEFAULT) == EVERYTHING
    cases = {"": "ynnn", "r": "yynn", "w": "ynyn", "rw": "yyyn", "m": "ynny", "rwm": "yyyy"}
    for access, opens in cases.items():
        more = [Rule("c", *NUMBERS, access)] if access else []
        rules = canonical([*DEFAULT, *more])
        world.rules.put(world.group, rules)
        assert world.rules.state(world.group, rules) == ""
        assert world.opens() == opens, access
        assert world.rules.state(world.group, canonical([Rule("b", 7, ANY, "r")])) not in {"", None}


def test_put_twice_is_put_once(world: World) -> None:
    for _ in range(2):
        world.rules.put(world.group, DEFAULT)
    assert world.rules.state(world.group, DEFAULT) == ""


def test_a_group_that_is_not_there_has_no_rules(world: World) -> None:
    assert world.rules.state(f"{world.group}/gone", DEFAULT) is None


def test_rules_of_a_whole_kind_and_of_a_whole_major(world: World) -> None:
    for rule in (Rule("c", ANY, ANY, "r"), Rule("c", NUMBERS[0], ANY, "r")):
        world.rules.put(world.group, canonical([*DEFAULT, rule]))
        assert world.opens() == "yynn"
    world.rules.put(world.group, canonical([*DEFAULT, Rule("b", ANY, ANY, "rwm")]))
    assert world.opens() == "ynnn"


def test_what_somebody_else_has_put_there_goes(world: World) -> None:
    """On v2 by a program of theirs; on v1 all, or a part of what is allowed."""
    world.rules.put(world.group, DEFAULT)
    directory = world.directory()
    if world.facts.hierarchy("devices"):
        for file, text in (("devices.allow", "a"), ("devices.deny", "c 1:3 w"), ("devices.allow", "c *:* m")):
            with open(f"{directory}/{file}", "w") as knob:
                knob.write(text)
            assert world.rules.state(world.group, DEFAULT)
            world.rules.put(world.group, DEFAULT)
            assert (world.rules.state(world.group, DEFAULT), world.opens()) == ("", "ynnn")
        return
    _attach(directory, 0, "others")
    assert world.rules.state(world.group, DEFAULT) == "those of a program others"
    world.rules.put(world.group, DEFAULT)
    assert (world.rules.state(world.group, DEFAULT), world.opens()) == ("", "ynnn")


def test_a_program_that_only_has_the_name_of_masus_own_goes(world: World) -> None:
    """One that allows everything, in the place of masu's, and then beside it."""
    if world.facts.hierarchy("devices"):
        return
    name = program_name(DEFAULT)
    _attach(world.directory(), 1, name)
    assert world.opens() == "yyyy"
    assert world.rules.state(world.group, DEFAULT) == f"those of another program named {name}"
    world.rules.put(world.group, DEFAULT)
    assert (world.rules.state(world.group, DEFAULT), world.opens()) == ("", "ynnn")
    _attach(world.directory(), 1, name)
    assert world.rules.state(world.group, DEFAULT)
    world.rules.put(world.group, DEFAULT)
    assert (world.rules.state(world.group, DEFAULT), world.opens()) == ("", "ynnn")


def _attach(directory: str, answer: int, name: str) -> None:
    """A program that gives the same answer to everything, 1: allowed."""
    cgroup = os.open(directory, os.O_RDONLY)
    program = bpf.load(INSTRUCTION.pack(0xB7, 0, 0, answer) + INSTRUCTION.pack(0x95, 0, 0, 0), name)
    bpf.attach(cgroup, program)
    os.close(program)
    os.close(cgroup)


def test_nothing_is_refused_in_between_that_is_allowed_before_and_after(world: World) -> None:
    """One process opens the device all the time, while another right comes and goes."""
    kept = canonical([*DEFAULT, Rule("c", *NUMBERS, "rw")])
    more = canonical([*kept, Rule("c", 10, 229, "rw")])
    world.rules.put(world.group, kept)
    script = (
        TRY.partition("for path")[0]
        + "print(1, flush=True)\nwhile True: os.close(os.open(sys.argv[1], os.O_RDWR))"
    )
    argv = [sys.executable, "-S", "-c", script, LATENCY, *Homes(world.facts).join_files(world.group)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(100):
                world.rules.put(world.group, more)
                world.rules.put(world.group, kept)
            assert process.poll() is None
        finally:
            process.kill()


def test_a_program_ends_with_its_group(world: World) -> None:
    if world.facts.hierarchy("devices"):
        return
    world.rules.put(world.group, DEFAULT)
    cgroup = os.open(world.directory(), os.O_RDONLY)
    (number,) = bpf.attached(cgroup)
    os.close(cgroup)
    CgroupTree(Homes(world.facts)).remove(world.group, lambda: None)
    deadline = 200
    while (left := bpf.opened(number)) is not None and deadline:
        os.close(left)
        deadline -= 1
        subprocess.run(["sleep", "0.05"], check=True)
    assert left is None
