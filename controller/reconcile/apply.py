"""Apply steps one after the other, saying what came of each. The only caller of `Step.apply`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controller.errors import MasuError
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.steps._base import Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step: done, or failed, or done with a wait for what follows."""

    step: Step
    error: MasuError | None = None
    wait: Wait | None = None


Failpoint = Callable[[str], None]
"""Called with the step's kind before each step, and with `kind+` after it; interruption tests end here."""


def apply(steps: Iterable[Step], host: Host, failpoint: Failpoint) -> list[Outcome]:
    """Apply in order. After a wait or an error nothing that depends on it is tried.

    Limits do not depend on each other, nor do interfaces: one that is refused is reported, and the others are
    still set. But nothing is born without what was asked for.
    """
    outcomes: list[Outcome] = []
    blocked: set[str] = set()
    for step in steps:
        if blocked and step.stage >= Stage.BIRTH:
            break
        if step.scope in blocked:
            continue
        failpoint(step.kind)
        outcome = _apply_one(step, host)
        failpoint(step.kind + "+")
        outcomes.append(outcome)
        if outcome.wait or outcome.error:
            if not step.scope:
                break
            blocked.add(step.scope)
    return outcomes


def _apply_one(step: Step, host: Host) -> Outcome:
    try:
        return Outcome(step, wait=step.apply(host))
    except MasuError as error:
        return Outcome(step, error=error)
