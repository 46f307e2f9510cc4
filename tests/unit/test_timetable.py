"""What the schedule tells of checkpoints that fail: not each time, and never once for all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from controller.checkpoints.policy import parse
from controller.errors import StepFailed
from controller.loop.timetable import TELL_AGAIN_MS, Timetable
from controller.model.attempts import Attempts
from controller.model.event import Event

EVERY_MS = 60_000


class World:
    """One container that runs, with a schedule; `why`: its checkpoints fail, "": they do not."""

    def __init__(self) -> None:
        self.now, self.why = 0, ""
        self.wanted: dict[str, Any] = {"web": None}
        self.noted: dict[str, Attempts] = {}
        self.events: list[Event] = []
        record = SimpleNamespace(phase="running", boot_id="boot", launched_at=0)
        host: Any = SimpleNamespace(
            facts=SimpleNamespace(boot_id="boot"),
            records=SimpleNamespace(read=lambda name: record),
            checkpoints=SimpleNamespace(checkpoints=lambda name: ()),
            attempts=SimpleNamespace(read=self.noted.get, write=self.noted.__setitem__),
            clock=SimpleNamespace(
                now_ms=lambda: self.now, wall_ms=lambda: self.now + 5, zone=lambda: ZoneInfo("UTC")
            ),
        )
        log = SimpleNamespace(event=self.events.append)
        self.table = Timetable(host, log, lambda: self.wanted, self.act)
        self.policy = parse({"schedule": {"every": "1m"}})

    def act(self, name: str) -> None:
        if self.why:
            raise StepFailed(self.why)
        self.noted[name] = Attempts(self.noted[name].failures, "", 0, self.now)

    def go(self, why: str) -> None:
        """To the next moment."""
        self.now, self.why = self.now + EVERY_MS, why
        self.table._look("web", self.policy)

    @property
    def told(self) -> list[str]:
        return [each.message for each in self.events]


def test_the_same_reason_is_told_once_an_hour() -> None:
    world = World()
    for number in range(TELL_AGAIN_MS // EVERY_MS + 1):
        world.go(f"no room: {number}.{number}Gi free")
    assert world.told == ["no room: 0.0Gi free", "no room: 60.60Gi free"]
    assert world.noted["web"].failures == 61
    assert world.noted["web"].said == "no room: 60.60Gi free"
    assert world.noted["web"].failed_ms == world.now + 5


def test_another_reason_and_the_same_after_a_success_are_told() -> None:
    world = World()
    for why in ("a", "a", "b", "b", "", "b"):
        world.go(why)
    assert world.told == ["a", "b", "b"]
    assert world.noted["web"].failures == 5


def test_of_who_has_gone_meanwhile_nothing_is_noted() -> None:
    world = World()
    world.wanted = {}
    world.go("it has ended")
    assert world.noted == {}
    assert world.told == ["it has ended"]
