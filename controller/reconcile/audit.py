"""Entries of the audit log: from what came of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.host.ports import Host
from controller.model.audit import Entry
from controller.reconcile.apply import Failpoint, Outcome, apply
from controller.steps._base import Step, Wait


def entries(name: str, outcomes: Iterable[Outcome], at: int) -> Iterator[Entry]:
    """Pure. One for each step that may have written; to wait is not to write."""
    for each in outcomes:
        if each.step.writes:
            yield _entry(name, each, at)


def do(step: Step, host: Host, failpoint: Failpoint) -> Wait | None:
    """Apply one step outside of a plan, and write that down. Raises what the step raises."""
    (outcome,) = apply((step,), host, failpoint)
    host.audit.append(tuple(entries(step.container, (outcome,), host.clock.wall_ms())))
    if outcome.error:
        raise outcome.error
    return outcome.wait


def _entry(name: str, found: Outcome, at: int) -> Entry:
    key, old, new = found.step.change or ("", "", "")
    step, what = found.step.kind, found.step.text
    if found.error:
        return Entry(at, name, "failed", step, what, key, old, new, str(found.error))
    if found.wait:
        return Entry(at, name, "waits", step, what, key, old, new, found.wait.message)
    return Entry(at, name, "done", step, what, key, old, new)
