"""hostname: the container's name in its own UTS namespace, changed live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.kernel import SetHostname


class Hostname:
    name = "hostname"
    section = "hostname"
    keys: Mapping[str, Effect] = {"hostname": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> str | None:
        """Pure."""
        del facts
        return str(section) if section is not None else None

    def birth(self, desired: str) -> Birth:
        """Pure. Set before the first instruction; no restart when it changes."""
        return Birth(Effect.LIVE, config={"hostname": desired})

    def observe(self, subject: Subject, host: Host, desired: str | None) -> str | None:
        """Read-only."""
        return host.inside.hostname(subject.pid) if subject.pid and desired is not None else None

    def diff(self, subject: Subject, desired: str, observed: str | None) -> list[Step]:
        """Pure."""
        if observed is None or observed == desired:
            return []
        return [SetHostname(subject.name, subject.init, desired, observed)]

    def remove(self, subject: Subject, observed: str | None) -> list[Step]:
        """Pure. The name goes with its namespace."""
        del subject, observed
        return []
