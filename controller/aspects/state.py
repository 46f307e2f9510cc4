"""state: running or frozen, through the freezer. Whether there is a process at all is the concern of `life`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.freezer import Freezer, SetFreezer, freezers_of, freezing


@dataclass(frozen=True, slots=True)
class Wanted:
    frozen: bool
    freezer: Freezer


class State:
    name = "state"
    section = "state"
    keys: Mapping[str, Effect] = {"state": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Wanted | None:
        """Pure. Raises HostLacks when `frozen` is asked of a host without a freezer."""
        freezers = freezers_of(facts)
        if not freezers:
            if section == "frozen":
                raise HostLacks(
                    "state: frozen needs cgroup v2 or the freezer subsystem; this host has neither"
                )
            return None
        return Wanted(section == "frozen", freezers[0])

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure. A frozen container is born first and frozen then."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> str | None:
        """Read-only. Also whether the freezer that masu does not use has been used."""
        if desired is None or not subject.pid:
            return None
        found = dict(freezing(host, subject.group))
        own = found.pop(desired.freezer)
        foreign = next((each for each, word in found.items() if word not in {None, each.thawed}), None)
        return foreign.frozen if foreign else own

    def diff(self, subject: Subject, desired: Wanted, observed: str | None) -> list[Step]:
        """Pure. A container that is being stopped is left alone."""
        if observed is None or (subject.record and subject.record.phase == "stopping"):
            return []
        wanted = desired.freezer.frozen if desired.frozen else desired.freezer.thawed
        if observed == wanted:
            return []
        return [SetFreezer(subject.name, subject.group, desired.freezer, desired.frozen, observed)]

    def remove(self, subject: Subject, observed: str | None) -> list[Step]:
        """Pure."""
        del subject, observed
        return []
