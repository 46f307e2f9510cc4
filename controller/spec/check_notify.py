"""Rules of `notify` that a schema cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.errors import Problem
from controller.model.quantity import parse_duration
from controller.model.resource import Resource

if TYPE_CHECKING:  # `masu status` needs these rules, but no YAML
    from controller.spec.document import Document

LEAST_EVERY_MS = 1000
MOST_TIMEOUT_MS = 60_000


def entries(document: Document, wanted: Resource) -> Iterator[Problem]:
    """Pure."""
    high = (wanted.section("limits.memory") or {}).get("high", "max") != "max"
    for index, entry in enumerate(wanted.section("notify") or ()):
        path = ("spec", "notify", index)
        for key, message in (*_conditions(entry, high=high), *_times(entry)):
            yield document.problem((*path, key) if key in entry else path, message)


def _conditions(entry: Mapping[str, Any], *, high: bool) -> Iterator[tuple[str, str]]:
    """(key, what is wrong)."""
    on = entry["on"]
    if on.endswith(".pressure"):
        if "some" in entry and "full" in entry:
            yield "full", "write some or full, not both: make two entries"
        if "level" in entry and on != "memory.pressure":
            yield "level", f"{on} has no level: write some or full"
        elif not {"some", "full", "level"} & set(entry):
            yield "on", f"when? Write for example some: 150ms/1s for {on}"
        return
    for key in ("some", "full", "level"):
        if key in entry:
            yield key, f"{key} is for pressure, not for {on}"
    if on == "memory.high" and not high:
        yield "on", "memory.high needs limits.memory.high"


def _times(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if parse_duration(str(entry.get("every", "10s"))) < LEAST_EVERY_MS:
        yield "every", f"{entry['every']} is too often: at least 1s"
    if "timeout" in entry and "exec" not in entry:
        yield "timeout", "there is no exec that it could be for"
    elif not 0 < parse_duration(str(entry.get("timeout", "5s"))) <= MOST_TIMEOUT_MS:
        yield "timeout", f"{entry['timeout']} is no time for a command: above 0 and at most 1m"
