"""What is too dangerous to do unasked. Pure: it refuses, it never changes a plan."""

from __future__ import annotations

from collections.abc import Collection

from controller.errors import GuardRefused
from controller.reconcile.plan import Plan
from controller.steps._base import Step

IF_MEANT = "pass --allow-removals (to `masu run` when it is started) if this is meant"
ALWAYS_ALLOWED = 3
"""Removing this many containers at once is an edit; removing more, and more than half, may be an accident."""


def split(plan: Plan) -> tuple[tuple[Step, ...], tuple[GuardRefused, ...]]:
    """The steps that may be applied, and why the others may not: one refused limit holds nothing else back."""
    refused = tuple(GuardRefused(f"{plan.container}: {step.risk}") for step in plan.steps if step.risk)
    return tuple(step for step in plan.steps if not step.risk), refused


def check_removals(
    present: Collection[str], removed: Collection[str], *, allowed: bool, moved: tuple[str, str] = ("", "")
) -> None:
    """Raises GuardRefused for a mass removal that nobody asked for.

    `moved`: where the source was, and is now; of another one nobody expects that it removes what the last one had.
    """
    was, now = moved
    if removed and was and now and was != now and not allowed:
        names = ", ".join(sorted(removed)[:5]) + (", …" if len(removed) > 5 else "")
        raise GuardRefused(
            f"the source was {was} until now, and {now} does not define {names}, which would be removed: a source"
            f" is all that there is to be in an instance; {IF_MEANT}"
        )
    if allowed or len(removed) <= ALWAYS_ALLOWED or len(removed) * 2 <= len(present):
        return
    names = ", ".join(sorted(removed)[:5])
    raise GuardRefused(
        f"{len(removed)} of {len(present)} containers would be removed ({names}, …): {IF_MEANT}"
    )


def refusal(
    present: Collection[str], removed: Collection[str], *, allowed: bool, moved: tuple[str, str] = ("", "")
) -> GuardRefused | None:
    """As `check_removals`, told instead of raised."""
    try:
        check_removals(present, removed, allowed=allowed, moved=moved)
    except GuardRefused as error:
        return error
    return None
