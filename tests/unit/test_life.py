"""The life of a container as a pure decision, and a small model of a host that obeys it, killed at any step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.aspects._base import Subject
from controller.aspects.life import Life, Restart, Seen, Wanted
from controller.model.frame import Frame
from controller.model.launch import Ended, ExitRecord
from controller.model.record import Exit, Record, StopRule
from controller.steps._base import Effect, Step

LIFE = Life()
GROUP = "/masu/test/web"


def frame(restart: str = "r1", recreate: str = "f1", *, layered: bool = True) -> Frame:
    root = {"path": "/srv", "writable": "overlay" if layered else "readOnly"}
    return Frame(restart + recreate, recreate, {"process": {"args": ["/bin/true"]}}, root)


def wanted(state: str = "running", policy: str = "always", made: Frame | None = None) -> Wanted:
    return Wanted(state, made or frame(), StopRule(15, 1000), Restart(policy, 200, 60_000))


RUNNING = Record(
    "web", "r1f1", "f1", "running", "boot", pid=7, start_time=70, launched_at=0, stop=StopRule(15, 1000)
)
NOTHING = Seen(False, 0, False, False, False, None, 0, None, ())
ALIVE = replace(NOTHING, alive=True, populated=True, remembered=True, traces=True, layer="f1")
DEAD = replace(NOTHING, remembered=True, traces=True, layer="f1", exit=ExitRecord(7, 70, "boot", 3, 0, 500))


def decide(desired: Wanted, seen: Seen, record: Record | None, now: int = 1000) -> list[Step]:
    pid = record.pid if record and seen.alive else 0
    return LIFE.diff(Subject("web", GROUP, pid, record, now), desired, seen)


def kinds(steps: list[Step]) -> list[str]:
    return [step.kind for step in steps]


def test_nothing_there_is_a_creation() -> None:
    steps = decide(wanted(), NOTHING, None)
    assert kinds(steps) == ["PrepareLayer", "WriteBundle", "LaunchContainer"]
    assert {step.effect for step in steps} == {Effect.CREATE}


def test_alive_and_equal_is_converged() -> None:
    assert decide(wanted(), ALIVE, RUNNING) == []


def test_another_process_restarts_and_keeps_the_layer() -> None:
    steps = decide(wanted(made=frame("r2")), ALIVE, RUNNING)
    assert kinds(steps) == ["StopContainer", "ClearRuntime", "WriteBundle", "LaunchContainer"]
    assert steps[0].effect is Effect.RESTART


def test_another_frame_recreates_with_a_new_layer() -> None:
    steps = decide(wanted(made=frame("r1", "f2")), ALIVE, RUNNING)
    assert kinds(steps) == [
        "StopContainer",
        "ClearRuntime",
        "RemoveLayer",
        "PrepareLayer",
        "WriteBundle",
        "LaunchContainer",
    ]
    assert steps[0].effect is Effect.RECREATE


def test_a_new_stop_rule_is_noted_without_a_restart() -> None:
    assert kinds(decide(replace(wanted(), stop=StopRule(2, 5)), ALIVE, RUNNING)) == ["UpdateRecord"]


def test_stopping_waits_for_grace_and_then_kills() -> None:
    asking = replace(RUNNING, phase="stopping", kill_at=2000, intent="the spec says stopped")
    assert kinds(decide(wanted("stopped"), ALIVE, asking, now=1999)) == ["StopContainer"], "interrupted"
    stopping = replace(asking, asked=True)
    assert kinds(decide(wanted("stopped"), ALIVE, stopping, now=1999)) == ["Await"]
    assert kinds(decide(wanted("stopped"), ALIVE, stopping, now=2000)) == ["KillContainer"]


def test_stopped_stays_stopped_and_is_cleared() -> None:
    ended = replace(RUNNING, phase="exited", exit=Exit(0, 0, "Stopped", 900), intent="x")
    assert kinds(decide(wanted("stopped"), DEAD, ended)) == ["ClearRuntime"]
    assert decide(wanted("stopped"), replace(DEAD, remembered=False), ended) == []


def test_the_first_restart_is_at_once() -> None:
    steps = decide(wanted(), DEAD, RUNNING)
    assert kinds(steps) == ["RecordExit", "ClearRuntime", "WriteBundle", "LaunchContainer"]


def test_the_exit_code_is_waited_for_a_little() -> None:
    unknown = replace(DEAD, exit=None)
    steps = decide(wanted(), unknown, RUNNING, now=1000)
    assert kinds(steps) == ["RecordExit", "Await"]
    seen_gone = replace(RUNNING, missing_at=1000)
    assert kinds(decide(wanted(), unknown, seen_gone, now=1200)) == ["Await"]
    assert kinds(decide(wanted(), unknown, seen_gone, now=1301))[0] == "RecordExit"
    assert kinds(decide(wanted(policy="on-failure"), unknown, seen_gone, now=1301)) == ["Await"]


def test_what_the_keeper_does_not_tell_the_kernel_does() -> None:
    """But not before the keeper had its time: it writes the last of the log first."""
    gone = replace(RUNNING, missing_at=1000)
    silent = replace(DEAD, exit=None, end=Ended(7, 0))
    assert kinds(decide(wanted(), silent, gone, now=1200)) == ["Await"]
    unsure = replace(silent, exit=ExitRecord(7, 70, "boot", -1, 0, 500))
    for seen, now in ((silent, 1301), (unsure, 1001)):
        assert decide(wanted(), seen, gone, now=now)[0].record.exit == Exit(7, 0, "Error", 1000)  # type: ignore[attr-defined]
    killed = replace(unsure, end=Ended(0, 9), oom_kills=1)
    assert decide(wanted(), killed, gone, now=1001)[0].record.exit.reason == "OOMKilled"  # type: ignore[attr-defined]
    sure = replace(silent, exit=ExitRecord(7, 70, "boot", 0, 0, 500))
    assert decide(wanted(), sure, gone, now=1001)[0].record.exit.code == 0  # type: ignore[attr-defined]


def test_an_exit_record_of_an_earlier_run_is_not_ours() -> None:
    old = replace(DEAD, exit=ExitRecord(7, 69, "boot", 0, 0, 400))
    assert kinds(decide(wanted(), old, RUNNING)) == ["RecordExit", "Await"]


def test_policies() -> None:
    failed = replace(RUNNING, phase="exited", exit=Exit(3, 0, "Error", 500))
    fine = replace(failed, exit=Exit(0, 0, "Completed", 500))
    quiet = replace(DEAD, remembered=False)
    assert decide(wanted(policy="never"), quiet, failed) == []
    assert decide(wanted(policy="on-failure"), quiet, fine) == []
    assert kinds(decide(wanted(policy="on-failure"), quiet, failed)) == ["WriteBundle", "LaunchContainer"]
    assert kinds(decide(wanted(policy="always"), quiet, fine)) == ["WriteBundle", "LaunchContainer"]


def test_an_edited_spec_starts_what_a_policy_would_leave_ended() -> None:
    ended = replace(RUNNING, phase="exited", exit=Exit(0, 0, "Completed", 500))
    steps = decide(wanted(policy="never", made=frame("r2")), replace(DEAD, remembered=False), ended)
    assert kinds(steps) == ["WriteBundle", "LaunchContainer"]


def test_back_off_doubles_up_to_the_maximum_and_a_long_run_forgives() -> None:
    delays = []
    record, at = RUNNING, 0
    for _ in range(12):
        seen = replace(DEAD, exit=ExitRecord(7, 70, "boot", 1, 0, at + 10))
        step = next(s for s in decide(wanted(), seen, replace(record, launched_at=at), now=at + 10))
        settled = step.record  # type: ignore[attr-defined]
        delays.append(max(0, settled.start_at - settled.exit.at))
        at = settled.start_at
        record = replace(RUNNING, backoff=settled.backoff)
    assert delays == [0, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]
    long_run = replace(DEAD, exit=ExitRecord(7, 70, "boot", 1, 0, 60_000))
    forgiven = decide(wanted(), long_run, replace(RUNNING, backoff=9), now=60_000)[0].record  # type: ignore[attr-defined]
    assert forgiven.start_at <= 60_000


def test_an_oom_kill_is_named() -> None:
    seen = replace(DEAD, exit=ExitRecord(7, 70, "boot", 0, 9, 500), oom_kills=1)
    assert decide(wanted(), seen, RUNNING)[0].record.exit.reason == "OOMKilled"  # type: ignore[attr-defined]


def test_a_launch_nobody_recorded_is_adopted_only_if_it_is_what_is_desired() -> None:
    launching = replace(RUNNING, phase="launching", pid=0)
    seen = replace(NOTHING, started=9, populated=True, remembered=True, layer="f1")
    assert kinds(decide(wanted(), seen, launching)) == ["AdoptContainer"]
    assert kinds(decide(wanted(made=frame("r2")), seen, launching))[0] == "ClearRuntime"


def test_absent_partners_are_waited_for() -> None:
    steps = decide(wanted(), replace(NOTHING, absent_partners=("db",)), None)
    assert kinds(steps)[0] == "Await"


def test_removal_stops_first_and_forgets_last() -> None:
    subject = Subject("web", GROUP, 7, RUNNING, 0)
    assert kinds(LIFE.remove(subject, ALIVE)) == [
        "StopContainer",
        "RemoveLayer",
        "ForgetContainer",
        "RemoveRecord",
    ]
    assert LIFE.remove(Subject("web", GROUP, 0, None, 0), NOTHING) == []


@dataclass
class World:
    """As much of a host as `life` touches; at most one process, or the model is wrong."""

    record: Record | None = None
    process: int = 0
    code: int = 0
    layer: str | None = None
    remembered: bool = False
    exit: ExitRecord | None = None
    now: int = 1_000_000
    launches: int = 0

    def seen(self) -> Seen:
        alive = bool(self.process and self.record and self.record.pid == self.process)
        started = self.process if self.process and not alive else 0
        populated = bool(self.process)
        return Seen(alive, started, populated, self.remembered, self.remembered, self.exit, 0, self.layer, ())

    def end(self, code: int, signal: int) -> None:
        self.exit = ExitRecord(self.process, self.process * 10, "boot", code, signal, self.now)
        self.process = 0

    def obey(self, step: Step) -> bool:
        """Apply a step; False when what follows must wait."""
        return bool(getattr(self, "_" + step.kind)(step))

    def _Await(self, step: Step) -> bool:  # noqa: N802
        self.now = max(self.now, step.until)  # type: ignore[attr-defined]
        return False

    def _StopContainer(self, step: Step) -> bool:  # noqa: N802
        before = step.record  # type: ignore[attr-defined]
        until = before.kill_at or self.now + 1000
        self.record = replace(before, phase="stopping", kill_at=until, intent=step.why, asked=True)  # type: ignore[attr-defined]
        return False

    def _KillContainer(self, step: Step) -> bool:  # noqa: N802
        if self.process:
            self.end(0, 9)
        return True

    def _RecordExit(self, step: Step) -> bool:  # noqa: N802
        self.record = step.record  # type: ignore[attr-defined]
        return True

    def _ClearRuntime(self, step: Step) -> bool:  # noqa: N802
        self.process, self.remembered = 0, False
        return True

    def _RemoveLayer(self, step: Step) -> bool:  # noqa: N802
        self.layer = None
        return True

    def _PrepareLayer(self, step: Step) -> bool:  # noqa: N802
        self.layer = step.frame.frame_digest  # type: ignore[attr-defined]
        return True

    def _WriteBundle(self, step: Step) -> bool:  # noqa: N802
        return True

    def _LaunchContainer(self, step: Step, *, recorded: bool = True) -> bool:  # noqa: N802
        assert self.process == 0, "a second process of one container"
        self.launches += 1
        pid = 100 + self.launches
        made = Record("web", step.frame.digest, step.frame.frame_digest, "launching", "boot", stop=step.stop)  # type: ignore[attr-defined]
        self.process, self.remembered = pid, True
        born = replace(made, phase="running", pid=pid, start_time=pid * 10, launched_at=self.now)
        self.record = born if recorded else made
        return True

    def _AdoptContainer(self, step: Step) -> bool:  # noqa: N802
        pid = step.pid  # type: ignore[attr-defined]
        self.record = replace(step.record, phase="running", pid=pid, start_time=pid * 10)  # type: ignore[attr-defined]
        return True

    def _UpdateRecord(self, step: Step) -> bool:  # noqa: N802
        self.record = step.record  # type: ignore[attr-defined]
        return True


def settle(world: World, desired: Wanted, crash_after: int = -1) -> bool:
    """Look and obey until nothing is left; `crash_after` steps the controller dies, also inside a launch."""
    done = 0
    for _ in range(40):
        alive = world.seen().alive
        pid = world.process if alive else 0
        steps = LIFE.diff(Subject("web", GROUP, pid, world.record, world.now), desired, world.seen())
        if not steps:
            return True
        for step in steps:
            if done == crash_after:
                if step.kind == "LaunchContainer":
                    world._LaunchContainer(step, recorded=False)
                return False
            done += 1
            if not world.obey(step):
                break
    raise AssertionError(f"does not settle: {kinds(steps)}")


DESIRES = st.builds(
    wanted,
    st.sampled_from(["running", "stopped"]),
    st.sampled_from(["always", "on-failure", "never"]),
    st.sampled_from([frame(r, f, layered=f != "f2") for r in ("r1", "r2") for f in ("f1", "f2", "f3")]),
)
HAPPENINGS = st.one_of(
    st.tuples(st.just("desire"), DESIRES, st.integers(-1, 12)),
    st.tuples(st.just("die"), st.integers(0, 3), st.sampled_from([0, 9])),
    st.tuples(st.just("lose record"), st.none(), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(HAPPENINGS, min_size=1, max_size=12), DESIRES)
def test_whatever_happens_it_settles_with_one_process_or_none(happenings: list[tuple], last: Wanted) -> None:  # type: ignore[type-arg]
    """Edits, deaths, lost records and crashes of the controller at any step, in any order."""
    world = World()
    for kind, what, how in happenings:
        if kind == "desire":
            settle(world, what, how)
        elif kind == "die" and world.process:
            world.end(what, how)
        elif kind == "lose record":
            world.record = None
    assert settle(world, last)
    if last.state == "stopped":
        assert world.process == 0
    elif world.process:
        assert world.record is not None
        assert (world.record.digest, world.layer) == (
            last.frame.digest,
            last.frame.frame_digest if last.frame.layered else None,
        )
    else:
        assert last.restart.policy != "always", "always means that it runs"
    launches = world.launches
    assert settle(world, last)
    assert world.launches == launches, "twice is once"


def test_a_record_of_another_boot_is_of_no_run() -> None:
    """Its times count from another boot: waiting for them would take hours."""
    waiting = replace(RUNNING, start_at=10**9, kill_at=10**9, phase="stopping", intent="x", boot_id="before")
    after = waiting.in_boot("now")
    assert kinds(decide(wanted(), NOTHING, after)) == kinds(decide(wanted(), NOTHING, None))
    assert waiting.in_boot("before") is waiting
