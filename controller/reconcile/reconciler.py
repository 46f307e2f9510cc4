"""Make one container what is desired: observe, diff, plan, guard, apply, verify, report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from controller.errors import GuardRefused, HostLacks, MasuError
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.cgroups import cgroup_of
from controller.model.status import HOST_LACKS, Condition
from controller.reconcile import guard
from controller.reconcile.apply import Failpoint, Outcome, apply
from controller.reconcile.audit import entries
from controller.reconcile.desired import Desired
from controller.reconcile.plan import Plan, plan, removal
from controller.steps._base import Stage, Wait
from controller.steps.images import PULLING, AwaitImage
from controller.steps.runtime import DOES_NOT_FIT, NOT_ALLOWED, Await, LaunchContainer

WAITING = "Waiting"
AWAIT, LAUNCH, AWAIT_IMAGE = Await.__name__, LaunchContainer.__name__, AwaitImage.__name__
MAX_PASSES = 12
"""One change needs a few looks (stop, exit, start, verify); more than this is a circle."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one container: `outcomes` in order, and when to look again (0: when something happens)."""

    container: str
    outcomes: tuple[Outcome, ...]
    converged: bool
    again_at: int
    error: MasuError | None
    conditions: tuple[Condition, ...]
    last: Plan
    turned: bool = False
    """Only the birth is left, and `turn` has said that it does that itself."""

    @property
    def exit_code(self) -> int:
        """0 converged, 4 no room for it or not allowed, 5 the host lacks something, else what the error says."""
        if self.converged:
            return 0
        if any(each.reason in {DOES_NOT_FIT, NOT_ALLOWED} for each in self.conditions):
            return GuardRefused.exit_code
        if self.error:
            return self.error.exit_code
        return HostLacks.exit_code if any(each.type == HOST_LACKS for each in self.conditions) else 1

    @property
    def rests(self) -> bool:
        """Nothing of it runs, and nothing is to be done about that."""
        return not (self.last.lives or self.last.steps or self.error)

    @property
    def gone(self) -> bool:
        return self.converged and not self.last.steps and self.last.subject.record is None


Look = Callable[[], Plan]
Turn = Callable[[Plan], Wait | None]
Watch = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Holds no state of its own: the truth is always observed again."""

    host: Host
    root: str
    failpoint: Failpoint

    def converge(
        self,
        desired: Desired,
        watch: Watch,
        leave: Collection[str] = (),
        held: Wait | None = None,
        turn: Turn | None = None,
    ) -> Result:
        """Look and act until nothing differs, something must be waited for, or something failed.

        `watch` is called between acting and looking, so that what changes after the last look is noticed.
        The keys in `leave` are left as they are while the container runs; none is born with them. While it is
        `held`, nothing is born, and nothing ended to be born anew. `turn` is asked before a birth, and may say that
        it does that itself: then all is done but that.
        """
        name, group = desired.name, self._group(desired.name)
        with self._written(name) as outcomes:
            return self._settle(
                outcomes,
                lambda: plan(desired, group, self.host),
                desired.lacks,
                lambda: watch(name, group),
                leave,
                held,
                turn,
            )

    def remove(self, name: str) -> Result:
        """Take every trace of a container away."""
        with self._written(name) as outcomes:
            return self._settle(
                outcomes, lambda: removal(name, self._group(name), self.host), (), lambda: None
            )

    @contextmanager
    def _written(self, name: str) -> Iterator[list[Outcome]]:
        """→ for what is done. It is written down once a look, when all is done, also where the look has failed."""
        outcomes: list[Outcome] = []
        try:
            yield outcomes
        finally:
            if outcomes:
                self.host.audit.append(tuple(entries(name, outcomes, self.host.clock.wall_ms())))

    def _group(self, name: str) -> str:
        return cgroup_of(self.root, name)

    def _settle(
        self,
        outcomes: list[Outcome],
        look: Look,
        lacks: tuple[Condition, ...],
        before_next: Callable[[], object],
        leave: Collection[str] = (),
        held: Wait | None = None,
        turn: Turn | None = None,
    ) -> Result:
        for _ in range(MAX_PASSES):
            found = look()
            steps, refused = guard.split(found)
            if held and any(_is_held(each.stage, lives=found.lives) for each in steps):
                return _result(found, outcomes, None, [held], refused, lacks)
            turned = turn(found) if turn and any(each.kind == LAUNCH for each in steps) else None
            if turned:
                steps = tuple(each for each in steps if each.stage < Stage.BIRTH or each.kind == AWAIT)
            if leave and found.lives:
                steps = tuple(each for each in steps if not (each.change and each.change[0] in leave))
            kinds = {each.kind for each in steps}
            if LAUNCH in kinds and "CreateCgroup" not in kinds:  # which would have to wait itself
                self.host.processes.hasten()
            done = apply(steps, self.host, self.failpoint)
            outcomes.extend(done)
            error = next((each.error for each in done if each.error), None)
            waits = [each.wait for each in done if each.wait]
            now = self.host.clock.now_ms()
            if turned and not (error or waits):
                return replace(_result(found, outcomes, None, [turned], refused, lacks), turned=True)
            if error or not steps or (waits and all(each.until > now for each in waits)):
                break
            before_next()
        else:
            waits = [Wait("Unsettled", "still differs after many looks", self.host.clock.now_ms() + 1000)]
        return _result(found, outcomes, error, waits, refused, lacks)


def waiting(result: Result, wait: Wait) -> Result:
    """What was to be done instead of a birth has to wait; what has come of it so far was told."""
    others = (each for each in result.conditions if each.type != WAITING)
    conditions = (*others, *_waiting([wait]))
    return replace(
        result, outcomes=(), converged=False, again_at=wait.until, conditions=conditions, turned=False
    )


def remarked(result: Result, reason: str, message: str) -> Result:
    """With a word of somebody who keeps nobody from running, unless that is said already."""
    if any(each.reason == reason for each in result.conditions):
        return result
    said = Condition(reason, status=True, reason=reason, message=message)
    return replace(result, conditions=(*result.conditions, said))


def awaiting(result: Result, wait: Wait) -> Result:
    """With what there is to be said of its image, where it waits for that."""
    if not any(each.wait and each.step.kind == AWAIT_IMAGE for each in result.outcomes):
        return result
    others = (each for each in result.conditions if (each.type, each.reason) != (WAITING, PULLING))
    return replace(result, again_at=wait.until, conditions=(*others, *_waiting([wait])))


def _result(
    found: Plan,
    outcomes: list[Outcome],
    error: MasuError | None,
    waits: Sequence[Wait],
    refused: tuple[GuardRefused, ...],
    lacks: tuple[Condition, ...],
) -> Result:
    conditions = (
        *lacks,
        *found.remarks,
        *(Condition("Refused", status=True, reason=each.reason, message=str(each)) for each in refused),
        *_broken(found),
        *_waiting(waits),
        *_failed(error),
    )
    return Result(
        container=found.container,
        outcomes=tuple(outcomes),
        converged=not (found.steps or error or waits or found.broken or lacks or found.lacks),
        again_at=min((each.until for each in waits), default=0),
        error=error or (refused[0] if refused else None),
        conditions=conditions,
        last=found,
    )


def _is_held(stage: Stage, *, lives: bool) -> bool:
    """What waits for the networks: a birth, and the links of a container that does not run."""
    return stage is Stage.BIRTH or (stage is Stage.LINK and not lives)


def _broken(found: Plan) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            "NotAsDesired",
            status=True,
            reason=each.reason,
            message=f"{each.key}: desired {each.desired}, live {each.live}",
        )
        for each in found.broken
    )


def _waiting(waits: Iterable[Wait]) -> tuple[Condition, ...]:
    return tuple(Condition(WAITING, status=True, reason=each.reason, message=each.message) for each in waits)


def _failed(error: MasuError | None) -> tuple[Condition, ...]:
    return (Condition("Failed", status=True, reason=error.reason, message=str(error)),) if error else ()
