"""Pressure triggers and v1's eventfds on real groups: they wake once, follow a new group, and leak nothing."""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import CgroupTree
from controller.host.facts import look
from controller.host.retired import Retired
from controller.host.triggers import TriggerFiles
from controller.model.notice import OOM_ON_V1, Watch

pytestmark = pytest.mark.root

FACTS = look(None)
HOMES = Homes(FACTS)
PRESSED = Watch("trigger", "core", "cpu.pressure", "some 2000000 2000000")
LEVEL = Watch("level", "memory", "memory.pressure_level", "low")
SOFT = Watch("threshold", "memory", "memory.usage_in_bytes")
HERE = [PRESSED, LEVEL, SOFT, OOM_ON_V1]


class World:
    def __init__(self) -> None:
        self.group = f"/masu/t-{secrets.token_hex(4)}/web"
        self.tree = CgroupTree(HOMES)
        self.woken: list[Watch | None] = []
        self.epoll = select.epoll()
        self.triggers = TriggerFiles(HOMES, lambda _, watch: self.woken.append(watch))
        self.retired = Retired(self.epoll)
        self.triggers.attach(self.epoll, self.retired)
        self.make()

    def make(self) -> None:
        self.tree.place(self.group, dict.fromkeys((each.mount for each in FACTS.hierarchies), ""), 0)

    def remove(self) -> None:
        self.tree.remove(self.group, lambda: None)

    def poll(self, wait_s: float = 0.0) -> list[Watch | None]:
        self.woken.clear()
        self.retired.close_all()
        for descriptor, events in self.epoll.poll(wait_s):
            if self.triggers.has(descriptor):
                self.triggers.drain(descriptor, events)
        return list(self.woken)

    def path(self, file: str) -> Path:
        hierarchy = FACTS.hierarchy("memory")
        assert hierarchy
        return Path(hierarchy.path(self.group)) / file


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        made.triggers.close()
        made.retired.close()
        made.epoll.close()
        made.remove()


def _descriptors(world: World) -> int:
    """Without those that the waiting thread closes before it waits."""
    world.retired.close_all()
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_open_whatever_happens_to_the_group(world: World) -> None:
    before = _descriptors(world)
    for _ in range(3):
        assert world.triggers.arm("web", world.group, HERE) == {}
        assert _descriptors(world) == before + len(HERE)
        assert world.triggers.arm("web", world.group, HERE) == {}, "what is armed costs nothing"
        assert _descriptors(world) == before + len(HERE)
        world.remove()
        world.poll(1)
        assert world.triggers.arm("web", world.group, HERE) == {}, "a group that is not there is no failure"
        assert _descriptors(world) == before
        world.make()
    world.triggers.arm("web", world.group, HERE)
    world.triggers.arm("web", world.group, HERE[:1])
    assert _descriptors(world) == before + 1
    world.triggers.disarm("web")
    assert _descriptors(world) == before


def test_what_is_told_to_one_that_is_gone_is_not_told_to_the_next(world: World) -> None:
    """Both between what a wait returns and its being read: the next one would have got the same number."""
    world.triggers.arm("web", world.group, [PRESSED])
    world.remove()
    told = world.epoll.poll(1)
    world.make()
    world.triggers.disarm("web")
    world.triggers.arm("db", world.group, [PRESSED])
    armed = _armed(world)
    for descriptor, events in told:
        if world.triggers.has(descriptor):
            world.triggers.drain(descriptor, events)
    assert told
    assert (world.woken, _armed(world)) == ([], armed), "the error was another's"


def _armed(world: World) -> list[int]:
    return [descriptor for descriptor in range(1024) if world.triggers.has(descriptor)]


def test_what_the_kernel_refuses_is_said_and_leaves_nothing_open(world: World) -> None:
    before = _descriptors(world)
    never = Watch("trigger", "core", "cpu.pressure", "some 2 1")
    assert world.triggers.arm("web", world.group, [never]) == {
        never: "cpu.pressure: Invalid argument (errno 22)"
    }
    assert _descriptors(world) == before


def test_a_threshold_wakes_once_and_moves_with_the_soft_limit(world: World) -> None:
    """The group is empty: what is charged to it comes and goes with a child of this test."""
    world.path("memory.soft_limit_in_bytes").write_text(str(8 << 20))
    world.triggers.arm("web", world.group, [SOFT])
    for _ in range(2):
        _eat(world, 16)
        assert world.poll(1) == [SOFT]
        _eat(world, 16)
        assert world.poll() == [], "it was armed for once"
        world.triggers.arm_again("web", SOFT)
        assert world.poll() == [SOFT], "what was crossed meanwhile is not lost"
        world.triggers.arm_again("web", SOFT)
        assert world.poll() == []
    world.path("memory.soft_limit_in_bytes").write_text(str(64 << 20))
    world.triggers.arm("web", world.group, [SOFT])
    _eat(world, 16)
    assert world.poll(0.2) == [], "the limit is higher now"


def _eat(world: World, mebibytes: int) -> None:
    pid = os.fork()
    if pid == 0:
        world.path("cgroup.procs").write_text("0")
        b"x" * (mebibytes << 20)
        os._exit(0)
    os.waitpid(pid, 0)
