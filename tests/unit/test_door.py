"""When admission is asked again: a round is about all containers, so only when there is something to give."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from controller.aspects._base import Subject
from controller.loop.door import Door
from controller.model.grant import Grant, Grants
from controller.model.resource import NODE, Resource
from controller.reconcile.desired import Named, Wish, resolve
from controller.reconcile.plan import Plan
from controller.reconcile.reconciler import Result
from tests.unit.resources import by_key, container
from tests.worlds import facts

HOST = facts("v2")
MI = 1 << 20


@dataclass
class World:
    """A host with room for a thousand Mi, and no record of anybody."""

    resources: dict[str, Resource]
    saved: dict[str, Grant] = field(default_factory=dict)
    wanted: dict[str, Wish] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = {
            "reserved": {"memory": f"{HOST.memory_total // MI - 1000}Mi"},
            "overcommit": {"limits": "refuse"},
        }
        self.resources |= by_key(Resource("this", "a.yaml", {}, spec, 1, kind=NODE))
        host: Any = SimpleNamespace(facts=HOST, records=SimpleNamespace(read=lambda name: None))
        self.door = Door(host, self)
        self.decide()

    def load(self) -> Grants:
        return self.saved

    def save(self, grants: Grants) -> None:
        self.saved = dict(grants)

    def decide(self) -> None:
        wishes, _ = resolve(Named("i", "/run/names", "/state/spaces"), self.resources, {}, ())
        self.wanted, _ = self.door.decide(self.resources, wishes, self.resources)

    def rest(self, name: str) -> bool:
        """A look has shown that nothing of it runs. → whether it is to be decided again."""
        digest, result = self.wanted[name].digest, _resting(name)
        return self.door.differs(name, digest, result) and self.door.settle(name, digest, result)


def _resting(name: str) -> Result:
    plan = Plan(name, Subject(name, f"/masu/i/{name}", 0, None, 0), ())
    return Result(name, (), converged=True, again_at=0, error=None, conditions=(), last=plan)


def _limited(name: str, memory: int, line: int = 2, **spec: Any) -> Resource:
    return container(name, line=line, limits={"memory": {"max": f"{memory}Mi"}}, **spec)


def test_stopped_containers_ask_for_no_round_however_full_the_host_is() -> None:
    stopped = [_limited(f"s{number}", 100, state="stopped") for number in range(5)]
    world = World(by_key(_limited("in", 900, 1), _limited("out", 900, 2), *stopped))
    assert world.door.held("out"), "somebody waits"
    assert [world.rest(each.name) for each in stopped] == [False] * 5
    assert [world.door.forget(each.name) for each in stopped] == [False] * 5


def test_who_ended_without_having_held_anything_asks_for_no_round_and_waits_no_more() -> None:
    world = World(by_key(_limited("in", 900, 1), _limited("ended", 900, 2)))
    assert not world.rest("ended")
    assert not world.rest("in"), "it gives back what nobody waits for any more"


def test_what_is_given_back_is_for_whoever_waits() -> None:
    world = World(by_key(_limited("in", 900, 1), _limited("out", 900, 2)))
    assert world.rest("in")
    assert not world.rest("in"), "it is given back once"
    world.decide()
    assert world.door.held("out") is None


def test_what_a_removed_one_held_is_for_whoever_waits() -> None:
    world = World(by_key(_limited("in", 900, 1), _limited("out", 900, 2)))
    del world.resources["in"]
    assert world.door.forget("in")
    assert not world.door.forget("in")
