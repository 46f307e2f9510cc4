"""What is too dangerous to do unasked. Pure: it refuses, it never changes a plan."""

from __future__ import annotations

from collections.abc import Collection

from controller.errors import GuardRefused
from controller.reconcile.plan import Plan
from controller.steps._base import Step

ALWAYS_ALLOWED = 3
"""Removing this many containers at once is an edit; removing more, and more than half, may be an accident."""


def split(plan: Plan) -> tuple[tuple[Step, ...], tuple[GuardRefused, ...]]:
    """The steps that may be applied, and why the others may not: one refused limit holds nothing else back."""
    refused = tuple(GuardRefused(f"{plan.container}: {step.risk}") for step in plan.steps if step.risk)
    return tuple(step for step in plan.steps if not step.risk), refused


def check_removals(present: Collection[str], removed: Collection[str], *, allowed: bool) -> None:
    """Raises GuardRefused for a mass removal that nobody asked for."""
    if allowed or len(removed) <= ALWAYS_ALLOWED or len(removed) * 2 <= len(present):
        return
    names = ", ".join(sorted(removed)[:5])
    raise GuardRefused(
        f"{len(removed)} of {len(present)} containers would be removed ({names}, …): "
        "pass --allow-removals if this is meant"
    )
