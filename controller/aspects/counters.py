"""What the kernel has counted of a container: no limit, nothing to converge, but something to say at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.counters import Counts
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.counting import ForgetCounters, counted


class Counters:
    name = "counters"
    section = ""
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> None:
        """Pure. Nobody asks for it."""
        del section, facts

    def birth(self, desired: None) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: None) -> Counts:
        """Read-only. Only asked before the container goes."""
        del desired
        return counted(host, subject.name, subject.group).total

    def diff(self, subject: Subject, desired: None, observed: Counts) -> list[Step]:
        """Pure."""
        del subject, desired, observed
        return []

    def remove(self, subject: Subject, observed: Counts) -> list[Step]:
        """Pure. Where something is kept, something has happened."""
        return [ForgetCounters(subject.name, observed)] if observed.any else []
