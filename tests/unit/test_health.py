"""What a spec may ask, when probes are a verdict, what follows from it, and whom nobody asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller.aspects._base import Subject
from controller.aspects.health import UNASKED, HealthCheck, Seen
from controller.checkpoints.ladder import candidates
from controller.checkpoints.policy import Policy
from controller.errors import StepFailed
from controller.host.verdicts import Verdicts
from controller.loop.probes import MOST_AT_ONCE, Probes
from controller.model.checkpoint import Checkpoint, Origin
from controller.model.event import Event
from controller.model.health import (
    FAILED,
    PASSED,
    UNKNOWN,
    Course,
    Health,
    Verdict,
    after,
    first_in_s,
    next_in_s,
)
from controller.model.launch import ExitRecord, Init
from controller.model.process import TIMED_OUT, ProcessStat
from controller.model.record import Exit, Record, StopRule
from controller.model.status import RESTORED, Condition
from controller.report.text import _reason
from controller.steps.health import ProveHealth
from controller.steps.runtime import StopContainer, UpdateRecord
from tests.unit.resources import problems_of
from tests.unit.test_life import ALIVE, DEAD, decide, kinds, wanted
from tests.worlds import MemoryCgroups, facts

GROUP = "/masu/test/web"
CHECK = Health(("/check",), interval_ms=100, timeout_ms=50, failures=3)
INIT, PROBER = Init(7, 70), Init(1, 10)
RUNNING = Record("web", "r1f1", "f1", "running", "boot", pid=7, start_time=70, stop=StopRule(15, 1000))
SICK = Verdict(FAILED, "health check failed 3 times: exit 1: no", PROBER)
WELL = Verdict(PASSED, "exit 0", PROBER)


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        ({"exec": ["/x"]}, None),
        ({"exec": ["/x"], "interval": "100ms", "timeout": "1m", "failures": 1, "delay": "1h"}, None),
        ({"exec": ["/x"], "onFailure": "report"}, None),
        ({"interval": "1s"}, 'health: "exec" is missing'),
        ({"exec": []}, "health.exec: "),
        ({"exec": ["/x"], "interval": "99ms"}, "health.interval: 99ms is too often: at least 100ms"),
        ({"exec": ["/x"], "timeout": "0"}, "health.timeout: 0 is no time for a command"),
        ({"exec": ["/x"], "timeout": "61s"}, "health.timeout: 61s is no time for a command"),
        ({"exec": ["/x"], "failures": 0}, "health.failures: "),
        (
            {"exec": ["/x"], "onFailure": "restore"},
            'health.onFailure: "restore" is not one of restart, report',
        ),
        ({"exec": ["/x"], "retries": 3}, "health.retries: unknown field"),
    ],
)
def test_a_spec_says_whom_to_ask_and_how_often(health: dict[str, Any], problem: str | None) -> None:
    found = problems_of(health=health)
    assert [each[: len(problem)] for each in found] == [problem] if problem else found == [], found


def test_the_defaults_are_those_of_the_schema() -> None:
    known = facts("hybrid")
    assert HealthCheck().parse(None, known) is None
    assert HealthCheck().parse({"exec": ["/x", "1"]}, known) == Health(
        ("/x", "1"), 10_000, 1_000, 3, 0, "restart"
    )
    written = {
        "exec": ["/x"],
        "interval": "2s",
        "timeout": "3s",
        "failures": 4,
        "delay": "5s",
        "onFailure": "report",
    }
    assert HealthCheck().parse(written, known) == Health(("/x",), 2_000, 3_000, 4, 5_000, "report")


def course(health: Health, *found: int, age_ms: int = 0, each_ms: int = 0) -> list[str]:
    """The reasons after each probe that ended like that."""
    known, reasons = Course(), []
    for number, status in enumerate(found):
        known = after(health, known, status, "", age_ms + number * each_ms)
        reasons.append(known.reason)
    return reasons


def test_so_many_failures_in_a_row_are_one_verdict_and_one_success_is_another() -> None:
    assert course(CHECK, 1, 1, 1, 1, 0) == [UNKNOWN, UNKNOWN, FAILED, FAILED, PASSED]
    assert course(CHECK, 0, 1, 1, 0, 1, 1, 1) == [PASSED] * 6 + [FAILED]
    assert course(replace(CHECK, failures=1), 0, 1, 0, TIMED_OUT) == [PASSED, FAILED, PASSED, FAILED]


def test_after_a_start_failures_do_not_count_until_the_delay_is_over_or_it_has_answered_once() -> None:
    slow = replace(CHECK, delay_ms=1000)
    assert course(slow, 1, 1, 1, 1, 1, 1, each_ms=300) == [UNKNOWN] * 6, "at 900 ms none has counted"
    assert course(slow, *[1] * 7, each_ms=300)[-1] == FAILED
    assert course(slow, 1, 1, 0, 1, 1, 1, each_ms=10) == [UNKNOWN, UNKNOWN, PASSED, PASSED, PASSED, FAILED]


def test_what_is_said_is_what_was_said_when_it_came_to_that() -> None:
    first = after(CHECK, Course(), 1, "no route", 0)
    assert first.message == "has not passed yet: exit 1: no route"
    sick = after(CHECK, replace(first, row=2), TIMED_OUT, "trying", 0)
    assert sick.message == "health check failed 3 times: no answer within 50ms: trying"
    assert after(CHECK, sick, 1, "something else", 0).message == sick.message
    assert (
        after(replace(CHECK, failures=1), Course(), 2, "", 0).message == "health check failed 1 time: exit 2"
    )
    assert after(CHECK, sick, 0, "", 0).message == "exit 0"


def test_probes_do_not_come_together() -> None:
    assert [first_in_s(CHECK, chance) for chance in (0.0, 0.5, 1.0)] == [0.0, 0.05, 0.1]
    assert [round(next_in_s(CHECK, chance), 3) for chance in (0.0, 0.5, 1.0)] == [0.09, 0.1, 0.11]


def diff(verdict: Verdict | None, record: Record = RUNNING, health: Health = CHECK) -> list[Any]:
    return HealthCheck().diff(Subject("web", GROUP, 7, record, 0), health, Seen(runs=True, fresh=verdict))


def test_a_look_writes_a_verdict_down_once_or_ends_the_container_for_it() -> None:
    assert diff(None) == []
    (noted,) = diff(WELL)
    assert isinstance(noted, UpdateRecord)
    assert noted.record == replace(RUNNING, health=WELL)
    assert diff(WELL, noted.record) == []
    (ended,) = diff(SICK)
    assert isinstance(ended, StopContainer)
    assert (ended.crashed, ended.why, ended.record.health) == (True, SICK.message, SICK)
    assert diff(SICK, replace(RUNNING, phase="stopping")) == []
    assert [each.kind for each in diff(SICK, health=replace(CHECK, on_failure="report"))] == ["UpdateRecord"]


def test_a_verdict_is_of_one_run_and_one_check_and_of_a_masu_that_lives() -> None:
    verdicts = Verdicts()
    alive = {1: ProcessStat(1, "S", 0, 10)}
    host: Any = SimpleNamespace(verdicts=verdicts, processes=SimpleNamespace(stat=alive.get))

    def said(record: Record = RUNNING, health: Health = CHECK, pid: int = 7) -> list[Condition]:
        seen = HealthCheck().observe(Subject("web", GROUP, pid, record, 0), host, health)
        return list(HealthCheck().remarks(health, seen))

    assert said() == [UNASKED]
    assert said(pid=0) == [], "who does not run is neither"
    verdicts.say("web", INIT, CHECK, SICK)
    assert said() == [Condition("Healthy", status=False, reason=FAILED, message=SICK.message)]
    assert said(health=replace(CHECK, failures=9)) == [UNASKED]
    assert said(replace(RUNNING, start_time=71)) == [UNASKED]
    verdicts.forget("web")
    assert said(replace(RUNNING, health=WELL)) == [
        Condition("Healthy", status=True, reason=PASSED, message="exit 0")
    ]
    alive.clear()
    assert said(replace(RUNNING, health=WELL)) == [UNASKED]


def test_a_record_keeps_it() -> None:
    full = replace(RUNNING, health=SICK, failure="why")
    assert Record.from_json(full.to_json()) == full
    assert Record.from_json(RUNNING.to_json()) == RUNNING


def test_an_end_for_that_is_a_crash_whatever_the_exit_code() -> None:
    """With its grace, its back-off, its policy, and its checkpoints."""
    stopping = replace(RUNNING, phase="stopping", failure=SICK.message, kill_at=2000)
    (asked,) = decide(wanted(), ALIVE, stopping, now=1000)
    assert (asked.crashed, asked.why) == (True, SICK.message)  # type: ignore[attr-defined]
    assert kinds(decide(wanted(), ALIVE, replace(stopping, asked=True), now=1000)) == ["Await"]
    assert kinds(decide(wanted(), ALIVE, replace(stopping, asked=True), now=2000)) == ["KillContainer"]
    obeyed = replace(DEAD, exit=ExitRecord(7, 70, "boot", 0, 0, 500))
    steps = decide(wanted(policy="on-failure"), obeyed, replace(stopping, backoff=1))
    ended = steps[0].record  # type: ignore[attr-defined]
    assert (ended.exit, ended.exit.failed) == (Exit(0, 0, "Unhealthy", 500), True)
    assert (ended.backoff, ended.start_at) == (2, 700)
    assert kinds(steps) == ["RecordExit", "ClearRuntime", "WriteBundle", "LaunchContainer"], (
        "it is 1000 by now"
    )
    assert "LaunchContainer" not in kinds(decide(wanted(policy="never"), obeyed, stopping))
    assert "LaunchContainer" not in kinds(decide(wanted("stopped"), obeyed, stopping))
    made = Checkpoint("0001", Origin("web", 1, "schedule", boot_id="boot", boot_ms=1, lineage="a"))
    crashed = replace(ended, launched_at=1, restored="0001", backoff=1, lineage="a")
    assert candidates([made], Policy(on_failure="restore"), crashed, "boot", None) == (made,)


def test_status_shows_what_is_wrong_and_not_that_nothing_is() -> None:
    good = Condition("Healthy", status=True, reason=PASSED, message="exit 0")
    from_one = Condition(RESTORED, status=True, reason="FromCheckpoint", message="x")
    bad = Condition("Waiting", status=True, reason="BackOff", message="x")
    for conditions, reason in (
        ((good, from_one), ""),
        ((bad, good), "BackOff"),
        ((replace(good, status=False),), PASSED),
    ):
        assert _reason(SimpleNamespace(conditions=conditions, drift=())) == reason  # type: ignore[arg-type]


@dataclass
class World:
    """The ports that probing needs, in memory: containers that run, and what they answer."""

    answers: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    nudged: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    most: int = 0
    free: threading.Event = field(default_factory=threading.Event)
    """Whether commands come to an end."""
    failure: StepFailed | None = None

    def __post_init__(self) -> None:
        self.free.set()
        self.cgroups = MemoryCgroups(facts("v2"))
        self.cgroups.fill(GROUP, {"cgroup.freeze": "0"})
        self.verdicts = Verdicts()
        self.host: Any = SimpleNamespace(
            facts=facts("v2"),
            cgroups=self.cgroups,
            verdicts=self.verdicts,
            commands=SimpleNamespace(run=self._run),
            clock=SimpleNamespace(now_ms=lambda: 0, wall_ms=lambda: 1, sleep_ms=lambda _: None),
            records=SimpleNamespace(read=lambda name: self.records.get(name, replace(RUNNING, name=name))),
            processes=SimpleNamespace(stat=lambda pid: ProcessStat(pid, "S", 1, pid * 10)),
        )
        self.probes = Probes(self.host, SimpleNamespace(event=self.events.append), PROBER, self.nudged.append)

    def _run(self, name: str, group: str, init: Init, wanted: Health) -> tuple[int, str]:
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        self.ran.append(name)
        self.free.wait(10)
        self.running.discard(name)
        if self.failure:
            raise self.failure
        return self.answers.get(name, 0), "said"

    def expect(self, name: str = "web", health: Health | None = CHECK, **kinds: Any) -> None:
        self.probes.expect(
            name, GROUP, kinds.get("init", INIT), health, disturbed=kinds.get("disturbed", False)
        )

    def told(self) -> list[str]:
        return [each.type for each in self.events]

    def verdict(self, name: str = "web") -> str:
        found = self.verdicts.read(name, INIT, CHECK)
        return found.reason if found else ""


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.free.set()
    made.probes.close()


def test_without_a_check_there_is_no_thread(world: World) -> None:
    world.expect(health=None)
    with world.probes.paused("web"):
        pass
    assert world.probes._threads == []


def test_each_change_is_told_once_and_looked_at(world: World) -> None:
    world.expect()
    until(lambda: world.verdict() == PASSED)
    assert (world.told(), world.nudged) == ([], ["web"]), "that it is well from the beginning is no news"
    world.answers["web"] = 1
    until(lambda: world.verdict() == FAILED)
    assert [each.message for each in world.events] == ["health check failed 3 times: exit 1: said"]
    before = len(world.ran)
    until(lambda: len(world.ran) > before + 2)
    world.answers["web"] = 0
    until(lambda: world.verdict() == PASSED)
    until(lambda: len(world.nudged) == 3)
    assert world.told() == ["Unhealthy", "Healthy"]


def test_who_is_frozen_or_being_stopped_is_not_asked(world: World) -> None:
    world.cgroups.fill(GROUP, {"cgroup.freeze": "1"})
    world.records["other"] = replace(RUNNING, phase="stopping")
    world.expect()
    world.expect("other")
    world.expect("third", init=Init(9, 90))
    time.sleep(0.4)
    assert (world.ran, world.told()) == ([], [])
    world.cgroups.fill(GROUP, {"cgroup.freeze": "0"})
    until(lambda: "web" in world.ran)
    assert "other" not in world.ran
    assert "third" not in world.ran, "another init runs there"


@pytest.mark.parametrize("what", ["frozen", "thawed", "restarted", "gone"])
def test_what_was_asked_before_that_counts_no_more(world: World, what: str) -> None:
    once = replace(CHECK, failures=1)
    world.answers["web"] = 1
    world.free.clear()
    world.expect(health=once)
    until(lambda: world.running)
    if what == "frozen":
        world.cgroups.fill(GROUP, {"cgroup.freeze": "1"})
    elif what == "thawed":
        world.answers["web"] = 1
        world.expect(health=once, disturbed=True)
    elif what == "restarted":
        world.expect(health=once, init=Init(8, 80))
    else:
        world.probes.forget("web")
    world.probes._asked.get("web", SimpleNamespace()).due = time.monotonic() + 100
    world.free.set()
    until(lambda: not world.running)
    time.sleep(0.05)
    assert (world.told(), world.nudged) == ([], [])


def test_a_pause_waits_for_the_probe_that_runs_and_holds_the_others_back(world: World) -> None:
    world.free.clear()
    world.expect()
    until(lambda: world.running)
    begun: list[float] = []
    release = threading.Event()

    def pause() -> None:
        with world.probes.paused("web"):
            begun.append(len(world.ran))
            release.wait(10)

    thread = threading.Thread(target=pause)
    thread.start()
    time.sleep(0.1)
    assert begun == []
    world.free.set()
    until(lambda: begun)
    assert not world.running
    time.sleep(0.3)
    assert len(world.ran) == begun[0]
    release.set()
    thread.join()
    until(lambda: len(world.ran) > begun[0])


def test_who_takes_longer_than_its_interval_is_paused_all_the_same(world: World) -> None:
    """Its next probe is due whenever one ends."""
    slow = replace(CHECK, interval_ms=1)
    world.expect(health=slow)
    for _ in range(20):
        before = len(world.ran)
        until(lambda b=before: len(world.ran) > b)  # type: ignore[misc]
        with world.probes.paused("web"):
            assert not world.running


def test_many_are_asked_a_few_at_a_time_and_one_that_hangs_keeps_no_other_from_it(world: World) -> None:
    for number in range(20):
        world.expect(f"c{number}")
    until(lambda: len(set(world.ran)) == 20)
    assert world.most <= MOST_AT_ONCE


def test_what_is_no_fault_of_the_container_is_no_verdict_on_it(world: World) -> None:
    world.failure = StepFailed("no runtime")
    world.expect()
    until(lambda: len(world.ran) > 4)
    assert [(each.type, each.message) for each in world.events] == [("NotProbed", "no runtime")]
    assert world.verdict() == UNKNOWN


def test_another_masu_goes_on_from_what_the_record_says(world: World) -> None:
    reports = replace(CHECK, on_failure="report")
    world.records["web"] = replace(RUNNING, health=replace(SICK, prober=Init(2, 20)))
    world.answers["web"] = 1
    world.expect(health=reports)
    until(lambda: world.verdicts.read("web", INIT, reports))
    assert world.told() == [], "that was told before"
    world.answers["web"] = 0
    until(lambda: world.told() == ["Healthy"])


def test_a_restore_is_proved_by_the_first_answer_and_given_up_after_so_many_failures(world: World) -> None:
    prove = ProveHealth("web", GROUP, CHECK)
    assert prove.apply(world.host) is None
    assert world.ran == ["web"]
    world.answers["web"] = 3
    with pytest.raises(StepFailed, match="health check failed 3 times: exit 3: said"):
        prove.apply(world.host)
    assert len(world.ran) == 4
    world.records["web"] = replace(RUNNING, pid=0)
    with pytest.raises(StepFailed, match="has ended"):
        prove.apply(world.host)
