"""What can be watched for on which host, what a spec may say, how sums are kept, and when who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller.aspects.notify import Notify
from controller.loop.errands import MOST_AT_ONCE
from controller.loop.notices import Notices
from controller.model.counters import Counts, Sample, Tally
from controller.model.event import Event
from controller.model.launch import Init
from controller.model.notice import OOM_ON_V1, Notice, Watch, stalled
from controller.model.process import ProcessStat
from controller.model.record import Record
from tests.unit.resources import problems_of
from tests.worlds import MemoryCgroups, facts

MEMORY = {"on": "memory.pressure", "some": "150ms/1s"}
GROUP = "/masu/test/web"


def _parsed(entry: dict[str, Any], layout: str, **known: Any) -> tuple[Watch | None, str]:
    found = Notify().parse([entry], facts(layout, **known))
    assert found is not None
    said = [f"{each.type}: {each.message.removeprefix('notify[0]: ')}" for each in found.said]
    return (found.notices[0].watch if found.notices else None), " ".join(said)


@pytest.mark.parametrize("layout", ["v2", "hybrid"])
@pytest.mark.parametrize("on", ["memory.pressure", "cpu.pressure", "io.pressure"])
def test_pressure_is_a_trigger_wherever_there_is_a_cgroup2_mount(layout: str, on: str) -> None:
    watch, said = _parsed({"on": on, "full": "0.05s/1s"}, layout)
    assert (watch, said) == (Watch("trigger", "core", on, "full 50000 1000000"), "")


def test_who_may_not_choose_the_window_gets_the_same_share_of_a_longer_one() -> None:
    watch, said = _parsed({**MEMORY, "some": "150ms/500ms"}, "hybrid", pressure_window_ms=2000)
    assert watch == Watch("trigger", "core", "memory.pressure", "some 600000 2000000")
    assert "Limited: without CAP_SYS_RESOURCE" in said
    assert "600ms/2s" in said
    watch, said = _parsed({**MEMORY, "some": "1s/10s"}, "v2", pressure_window_ms=2000)
    assert (watch and watch.argument, said) == ("some 1000000 10000000", "")


@pytest.mark.parametrize(
    ("entry", "layout", "pressure", "expected", "said"),
    [
        (MEMORY, "v1", True, "medium", "Limited: no pressure file"),
        (MEMORY, "hybrid", False, "medium", "Limited: no pressure file"),
        ({**MEMORY, "level": "low"}, "v1", True, "low", "Limited"),
        ({"on": "memory.pressure", "full": "1s/1s"}, "v1", True, "critical", "Limited"),
        ({"on": "memory.pressure", "level": "low"}, "hybrid", True, "low", ""),
        ({"on": "memory.pressure", "level": "low"}, "v2", True, None, "HostLacks: level is cgroup v1's"),
        (MEMORY, "v2", False, None, "HostLacks: this kernel accounts no pressure: boot with psi=1"),
        (
            {"on": "cpu.pressure", "some": "1s/1s"},
            "v1",
            True,
            None,
            "HostLacks: cpu.pressure needs a cgroup2",
        ),
        ({"on": "io.pressure", "some": "1s/1s"}, "hybrid", False, None, "HostLacks: this kernel accounts no"),
    ],
)
def test_levels_of_v1_stand_in(
    entry: dict[str, Any], layout: str, pressure: bool, expected: str | None, said: str
) -> None:
    watch, found = _parsed(entry, layout, pressure=pressure)
    assert (watch and (watch.how, watch.argument)) == (expected and ("level", expected))
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_kills_and_high_are_counters_or_what_v1_has() -> None:
    assert _parsed({"on": "oom"}, "v2") == (Watch("counter", "memory", "memory.events", "oom_kill"), "")
    assert _parsed({"on": "memory.high"}, "v2") == (Watch("counter", "memory", "memory.events", "high"), "")
    assert _parsed({"on": "oom"}, "hybrid") == (OOM_ON_V1, "")
    watch, said = _parsed({"on": "memory.high"}, "v1")
    assert (watch and watch.how) == "threshold"
    assert said.startswith("Limited: cgroup v1 tells when use crosses")
    assert _parsed({"on": "oom"}, "v2", without=("memory",))[1].startswith("HostLacks: the kernel")


def test_one_entry_that_cannot_be_takes_nothing_from_the_others() -> None:
    found = Notify().parse([{"on": "cpu.pressure", "some": "1s/1s"}, {"on": "oom"}], facts("v1"))
    assert found is not None
    assert [each.on for each in found.notices] == ["oom"]
    assert [each.reason for each in found.said] == ["NoCpuPressure"]


def _problems(*notify: dict[str, Any], **limits: Any) -> list[str]:
    return problems_of(limits=limits, notify=list(notify))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({**MEMORY, "exec": ["/x"], "every": "1s", "timeout": "1m"}, None),
        ({"on": "memory.pressure", "level": "low", "full": "1s/10s"}, None),
        ({"on": "oom", "exec": ["/x"]}, None),
        ({"on": "memory.pressure"}, "notify[0].on: when? Write for example some: 150ms/1s"),
        ({**MEMORY, "full": "1s/1s"}, "notify[0].full: write some or full, not both"),
        ({"on": "cpu.pressure", "level": "low"}, "notify[0].level: cpu.pressure has no level"),
        ({"on": "oom", "some": "1s/1s"}, "notify[0].some: some is for pressure, not for oom"),
        ({"on": "memory.high"}, "notify[0].on: memory.high needs limits.memory.high"),
        ({**MEMORY, "every": "999ms"}, "notify[0].every: 999ms is too often"),
        ({**MEMORY, "timeout": "1s"}, "notify[0].timeout: there is no exec"),
        ({**MEMORY, "exec": ["/x"], "timeout": "61s"}, "notify[0].timeout: 61s is no time for a command"),
        ({**MEMORY, "exec": ["/x"], "timeout": "0"}, "notify[0].timeout: 0 is no time"),
        ({**MEMORY, "some": "150ms"}, "notify[0].some: "),
        ({**MEMORY, "some": "0/1s"}, 'notify[0].some: "0/1s": the stall is above 0'),
        ({**MEMORY, "some": "2s/1s"}, "notify[0].some: "),
        ({**MEMORY, "some": "1ms/499ms"}, 'notify[0].some: "1ms/499ms": the window is from'),
        ({**MEMORY, "some": "1s/11s"}, "notify[0].some: "),
        ({"on": "pressure"}, "notify[0].on: "),
    ],
)
def test_a_spec_says_when_or_is_told_how_to(entry: dict[str, Any], problem: str | None) -> None:
    found = _problems(entry)
    assert [each[: len(problem)] for each in found] == [problem] if problem else found == [], found
    assert _problems({"on": "memory.high"}, memory={"high": "1Mi"}) == []


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"2Mi": "1Gi", "1Gi": "max"}, None),
        ({"3Mi": 0}, 'limits.hugepages["3Mi"]: 3Mi is not the size of a page'),
        ({"1Gi": 0, "1024Mi": 0}, 'limits.hugepages["1024Mi"]: 1024Mi is the same size as 1Gi'),
        ({"big": 0}, "limits.hugepages"),
    ],
)
def test_sizes_of_pages(sizes: dict[str, Any], problem: str | None) -> None:
    found = _problems(hugepages=sizes)
    assert [each[: len(problem)] for each in found] == [problem] if problem else found == [], found


def test_sums_outlive_the_groups_that_they_were_counted_in() -> None:
    first = Tally().after(Sample(Counts(2, 100, None), {"memory": 1, "cpu": 9}))
    assert first.total == Counts(2, 100, None)
    gone = first.after(Sample(Counts(), {}))
    assert gone.total == Counts(2, 100, None), "a group that is not there takes nothing along"
    second = gone.after(Sample(Counts(3, 150, None), {"memory": 2, "cpu": 9}))
    assert second.total == Counts(5, 150, None), "the group of the cpu is the same still"
    assert second.after(Sample(Counts(1, 150, None), {"memory": 2, "cpu": 9})).total == Counts(6, 150, None)
    assert Tally.from_json(second.to_json()) == second


def test_what_a_pressure_file_says() -> None:
    text = "some avg10=1.50 avg60=0 avg300=0 total=1200000\nfull avg10=0.00 avg60=0 avg300=0 total=0\n"
    assert stalled(text, "some") == "stalled 1.50 % of the last 10s, 1.2s in all"
    assert stalled("", "full") == "stalled 0 % of the last 10s, 0.0s in all"


@dataclass
class World:
    """The ports that `Notices` uses, in memory: a container that runs, and what happened to it."""

    version: int
    events: list[Event] = field(default_factory=list)
    ran: list[Notice] = field(default_factory=list)
    armed: set[Watch] = field(default_factory=set)
    again: list[Watch] = field(default_factory=list)
    kept: dict[str, Tally] = field(default_factory=dict)
    refused: dict[Watch, str] = field(default_factory=dict)
    answer: tuple[int, str] = (0, "")
    takes_s: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)
    """No command takes longer than until then."""
    quick: threading.Event = field(default_factory=threading.Event)
    """Whether sums are written without waiting for anything."""

    def __post_init__(self) -> None:
        known = facts("v2" if self.version == 2 else "hybrid")
        self.quick.set()
        self.cgroups = MemoryCgroups(known)
        self.happen(oom_kill=0, high=0)
        self.host: Any = SimpleNamespace(
            facts=known,
            cgroups=self.cgroups,
            tallies=self,
            clock=SimpleNamespace(now_ms=lambda: 0, wall_ms=lambda: 1),
            records=SimpleNamespace(read=lambda name: Record(name, "", "", "running", "boot", 7, 70)),
            processes=SimpleNamespace(stat=lambda pid: ProcessStat(7, "S", 1, 70)),
        )
        self.notices = Notices(self.host, SimpleNamespace(event=self.events.append), self, self)

    def happen(self, **counters: int) -> None:
        text = "\n".join(f"{key} {value}" for key, value in counters.items())
        self.cgroups.fill(GROUP, {"memory.events" if self.version == 2 else "memory.oom_control": text})

    def freeze(self, word: str) -> None:
        self.cgroups.fill(GROUP, {"cgroup.freeze": word})

    def expect(self, *notices: Notice) -> None:
        self.notices.expect("web", GROUP, Init(7, 70), notices, sampled=False)

    def told(self) -> list[str]:
        return [each.type for each in self.events]

    # --- Tallies ---

    def number(self, group: str, subsystem: str) -> int:
        return 1

    def read(self, name: str) -> Tally | None:
        return self.kept.get(name)

    def write(self, name: str, tally: Tally) -> None:
        self.quick.wait(10)
        self.kept[name] = tally

    # --- Triggers ---

    def arm(self, name: str, group: str, wanted: Collection[Watch]) -> Mapping[Watch, str]:
        self.armed = set(wanted)
        return self.refused

    def arm_again(self, name: str, watch: Watch) -> None:
        self.again.append(watch)

    def disarm(self, name: str) -> None:
        self.armed = set()

    # --- Commands ---

    def run(self, name: str, group: str, init: Init, notice: Notice) -> tuple[int, str]:
        self.ran.append(notice)
        self.over.wait(self.takes_s)
        return self.answer


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(params=[1, 2])
def world(request: pytest.FixtureRequest) -> Any:
    made = World(request.param)
    yield made
    made.notices.close()


TRIGGER = Watch("trigger", "core", "cpu.pressure", "some 1 2")
PRESSED = Notice("cpu.pressure", "some 1s/2s", TRIGGER, 1000, ("/shed",), 1000)


def test_pressure_is_told_once_and_armed_again_after_the_pause(world: World) -> None:
    world.expect(PRESSED)
    assert TRIGGER in world.armed
    world.notices.wake("web", TRIGGER)
    _until(lambda: world.told() == ["CpuPressure", "Notified"])
    assert (world.again, world.ran) == ([], [PRESSED])
    _until(lambda: world.again == [TRIGGER])
    world.notices.wake("web", TRIGGER)
    _until(lambda: world.told().count("CpuPressure") == 2)


def test_a_kill_is_told_with_or_without_an_entry_and_kept(world: World) -> None:
    on_oom = Notice("oom", "", OOM_ON_V1, 10_000, ("/mourn",), 1000)
    world.expect(on_oom)
    time.sleep(0.1)  # what was there before is nobody's
    world.happen(oom_kill=2, high=0)
    world.notices.wake("web", OOM_ON_V1 if world.version == 1 else None)
    _until(lambda: world.told() == ["OomKilled", "Notified"])
    assert "2 processes; 2 so far" in world.events[0].message
    assert world.kept["web"].total.oom_kills == 2
    world.notices.forget("web")
    world.expect(on_oom)
    time.sleep(0.1)
    assert world.told() == ["OomKilled", "Notified"], "what was told is not told again"


def test_no_repair_waits_for_a_look_and_a_removal_waits_for_its_end(world: World) -> None:
    world.expect(PRESSED)
    time.sleep(0.1)
    world.quick.clear()
    world.happen(oom_kill=1, high=0)
    world.notices.wake("web", None)
    _until(lambda: "OomKilled" in world.told())
    repair = threading.Thread(target=world.expect, args=(PRESSED,), daemon=True)
    repair.start()
    repair.join(2)
    removal = threading.Thread(target=world.notices.forget, args=("web",), daemon=True)
    removal.start()
    removal.join(0.1)
    found = repair.is_alive(), removal.is_alive(), "web" in world.kept
    world.quick.set()
    removal.join(2)
    assert found == (False, True, False)
    assert "web" in world.kept, "what is written is written before the removal goes on"


def test_what_came_during_the_pause_is_told_after_it_when_it_was_counted() -> None:
    world = World(2)
    counter = Notice("memory.high", "", Watch("counter", "memory", "memory.events", "high"), 1500)
    world.expect(counter)
    time.sleep(0.1)
    world.happen(oom_kill=0, high=1)
    world.notices.wake("web", None)
    _until(lambda: world.told() == ["MemoryHigh"])
    world.happen(oom_kill=0, high=2)
    world.notices.wake("web", None)
    time.sleep(1.2)
    assert world.told() == ["MemoryHigh"]
    _until(lambda: world.told() == ["MemoryHigh", "MemoryHigh"])
    world.notices.close()


def test_who_is_frozen_is_told_nothing(world: World) -> None:
    world.freeze("1")
    world.expect(PRESSED)
    world.notices.wake("web", TRIGGER)
    _until(lambda: world.again == [TRIGGER])
    assert (world.told(), world.ran) == ([], [])


def test_a_command_never_runs_twice_at_once_and_its_failure_is_told(world: World) -> None:
    world.takes_s, world.answer = 1.5, (3, "no such thing")
    world.expect(PRESSED)
    world.notices.wake("web", TRIGGER)
    _until(lambda: world.again == [TRIGGER])
    world.notices.wake("web", TRIGGER)
    _until(lambda: len(world.events) == 3)
    assert world.told() == ["CpuPressure", "CpuPressure", "NotifyFailed"]
    assert "has not ended" in world.events[1].message
    assert world.events[2].message == "cpu.pressure: /shed: ended with 3: no such thing"
    assert len(world.ran) == 1


def test_a_container_whose_commands_hang_delays_its_own_alone(world: World) -> None:
    """As many as may run at all on the host; and then one of a neighbour's."""
    hanging = [replace(PRESSED, command=(f"/hang{number}",)) for number in range(MOST_AT_ONCE)]
    world.takes_s = 5.0
    world.expect(*hanging)
    world.notices.expect("neighbour", GROUP, Init(7, 70), (PRESSED,), sampled=False)
    world.notices.wake("web", TRIGGER)
    _until(lambda: len(world.ran) >= 1)
    world.notices.wake("neighbour", TRIGGER)
    _until(lambda: PRESSED in world.ran)
    world.over.set()
    _until(lambda: len(world.ran) == 1 + MOST_AT_ONCE)
    assert world.ran.index(PRESSED) == 1
    assert [each for each in world.ran if each != PRESSED] == hanging


def test_what_cannot_be_watched_is_told_once(world: World) -> None:
    world.refused = {TRIGGER: "cpu.pressure: Invalid argument (errno 22)"}
    world.expect(PRESSED)
    world.expect(PRESSED)
    assert world.told() == ["NotWatched"]
