"""What `health` asks for, what probes have found, and when that is a verdict. Pure values; time is an argument."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from controller.frozen import dataclass
from controller.model.launch import Init
from controller.model.process import TIMED_OUT
from controller.model.quantity import format_duration

HEALTHY = "Healthy"
"""Type of the condition."""
PASSED, FAILED, UNKNOWN = "HealthCheckPassed", "HealthCheckFailed", "HealthUnknown"
"""Its reasons."""
JITTER = 0.1
"""Probes are so much of their interval earlier or later, lest those of all containers come together."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a container is asked. `delay_ms`: how long after a start failures do not count."""

    command: tuple[str, ...]
    interval_ms: int = 10_000
    timeout_ms: int = 1_000
    failures: int = 3
    delay_ms: int = 0
    on_failure: Literal["restart", "report"] = "restart"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a run. `prober`: the masu that says so; when that has ended, nobody knows any more."""

    reason: str
    message: str
    prober: Init


@dataclass(frozen=True, slots=True)
class Course:
    """What was found of one run so far. `row`: failures in a row; `ripe`: it has passed once."""

    reason: str = UNKNOWN
    message: str = ""
    row: int = 0
    ripe: bool = False


def after(health: Health, before: Course, status: int, said: str, age_ms: int) -> Course:
    """What is known after one probe more. `age_ms`: how long the run was at its beginning.

    The message stays what it was when the reason came: what is said anew each time would be written each time.
    """
    found = told(health, status, said)
    if status == 0:
        return replace(before, row=0) if before.reason == PASSED else Course(PASSED, found, ripe=True)
    counts = before.ripe or age_ms >= health.delay_ms
    row = before.row + counts
    if counts and row >= health.failures and before.reason != FAILED:
        return Course(FAILED, failed(health, row, status, said), row, before.ripe)
    message = f"has not passed yet: {found}" if before.reason == UNKNOWN else before.message
    return replace(before, row=row, message=message)


def failed(health: Health, row: int, status: int, said: str) -> str:
    """In words, after so many failures in a row."""
    return f"health check failed {row} time{'s' * (row != 1)}: {told(health, status, said)}"


def told(health: Health, status: int, said: str) -> str:
    """How one probe ended, in words."""
    late = f"no answer within {format_duration(health.timeout_ms)}"
    return (late if status == TIMED_OUT else f"exit {status}") + (f": {said}" if said else "")


def first_in_s(health: Health, chance: float) -> float:
    """How long to wait for the first probe: all have theirs when masu starts. `chance`: from 0 to 1."""
    return health.interval_ms / 1000 * chance


def next_in_s(health: Health, chance: float) -> float:
    """How long from the beginning of one probe to the next."""
    return health.interval_ms / 1000 * (1 + JITTER * (2 * chance - 1))
