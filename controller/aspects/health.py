"""health: whether a container answers, and the end of one that does not. The daemon asks (`loop.probes`).

What was found is in masu's memory until a look writes it into the record, or ends the container for it. Nothing of
that is state of the kernel, and a container that does not answer is as its spec says all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.health import FAILED, HEALTHY, PASSED, UNKNOWN, Health, Verdict
from controller.model.quantity import parse_duration
from controller.model.record import Record
from controller.model.status import Condition
from controller.steps._base import Effect, Step
from controller.steps.runtime import StopContainer, UpdateRecord

UNASKED = Condition(
    HEALTHY, status=False, reason=UNKNOWN, message="not probed yet by a daemon that runs (masu run SOURCE)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Of a run. `fresh`: what this masu has found; `noted`: what its record says, by a masu that still runs."""

    runs: bool = False
    fresh: Verdict | None = None
    noted: Verdict | None = None


class HealthCheck:
    name = "health"
    section = "health"
    keys: Mapping[str, Effect] = {
        f"health.{each}": Effect.LIVE
        for each in ("exec", "interval", "timeout", "failures", "delay", "onFailure")
    }

    def parse(self, section: Any, facts: Facts) -> Health | None:
        """Pure."""
        del facts
        if not section:
            return None
        default = Health(())

        def length(key: str, usual: int) -> int:
            return parse_duration(str(section[key])) if key in section else usual

        return Health(
            command=tuple(section["exec"]),
            interval_ms=length("interval", default.interval_ms),
            timeout_ms=length("timeout", default.timeout_ms),
            failures=section.get("failures", default.failures),
            delay_ms=length("delay", default.delay_ms),
            on_failure=section.get("onFailure", default.on_failure),
        )

    def birth(self, desired: Health) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Health | None) -> Seen:
        """Read-only."""
        if desired is None or not subject.pid or subject.record is None:
            return Seen()
        return Seen(
            runs=True,
            fresh=host.verdicts.read(subject.name, subject.init, desired),
            noted=_noted(subject.record, host),
        )

    def diff(self, subject: Subject, desired: Health, observed: Seen) -> list[Step]:
        """Pure. What is found of a container that is being stopped says nothing."""
        record, found = subject.record, observed.fresh
        if found is None or record is None or record.phase != "running":
            return []
        noted = replace(record, health=found)
        if found.reason == FAILED and desired.on_failure == "restart":
            why, means = found.message, Effect.RESTART
            return [StopContainer(subject.name, noted, subject.group, why, means, crashed=True)]
        return [UpdateRecord(subject.name, noted, "its health")] if record.health != found else []

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure."""
        del subject, observed
        return []

    def remarks(self, desired: Health, observed: Seen) -> Iterable[Condition]:
        """Pure."""
        del desired
        found = observed.fresh or observed.noted
        if found:
            yield Condition(HEALTHY, found.reason == PASSED, found.reason, found.message)
        elif observed.runs:
            yield UNASKED


def _noted(record: Record, host: Host) -> Verdict | None:
    """Read-only."""
    found = record.health
    stat = host.processes.stat(found.prober.pid) if found else None
    return found if found and stat and stat.start_time == found.prober.start_time else None
