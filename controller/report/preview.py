"""What `masu plan` found. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import GuardRefused, Problem
from controller.model.status import Condition
from controller.reconcile.plan import Plan


@dataclass(frozen=True, slots=True)
class Preview:
    """Plans with changes, and what stands in the way."""

    plans: tuple[Plan, ...]
    removed: tuple[str, ...]
    rejected: tuple[Problem, ...]
    frozen: str
    refused: GuardRefused | None
    lacks: tuple[tuple[str, Condition], ...]
