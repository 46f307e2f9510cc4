"""From what came of steps to entries of the audit log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.model.audit import Entry
from controller.reconcile.apply import Outcome
from controller.steps.runtime import Await


def entries(name: str, outcomes: Iterable[Outcome], at: int) -> Iterator[Entry]:
    """Pure. One for each step that may have written; to wait is not to write."""
    for each in outcomes:
        if not isinstance(each.step, Await):
            yield _entry(name, each, at)


def _entry(name: str, found: Outcome, at: int) -> Entry:
    key, old, new = found.step.change or ("", "", "")
    step, what = found.step.kind, found.step.text
    if found.error:
        return Entry(at, name, "failed", step, what, key, old, new, str(found.error))
    if found.wait:
        return Entry(at, name, "waits", step, what, key, old, new, found.wait.message)
    return Entry(at, name, "done", step, what, key, old, new)
