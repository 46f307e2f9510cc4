"""ports: whether the ports that a container publishes are its own; the packet filter leads them to it.

A port on which a program of the host listened first, or that another instance published first, stays theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects import _taken_ports
from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.firewall import Publication
from controller.model.status import Drift
from controller.steps._base import Effect, Step


class Ports:
    name = "ports"
    section = "ports"
    keys: Mapping[str, Effect] = {"ports": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> tuple[Publication, ...] | None:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        return tuple(section) if section else None

    def birth(self, desired: tuple[Publication, ...]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(
        self, subject: Subject, host: Host, desired: tuple[Publication, ...] | None
    ) -> Mapping[Publication, str]:
        """Read-only. Those of its ports that are somebody else's, and whose."""
        del subject
        return _taken_ports.taken(desired or (), host)

    def diff(
        self, subject: Subject, desired: tuple[Publication, ...], observed: Mapping[Publication, str]
    ) -> list[Step]:
        """Pure. Who has the port has to let it go."""
        del subject, desired, observed
        return []

    def verify(self, desired: tuple[Publication, ...], observed: Mapping[Publication, str]) -> list[Drift]:
        """Pure."""
        taken = {(each.protocol, each.host_port): why for each, why in observed.items() if each in desired}
        return [
            Drift(self.name, f"ports.{port}/{protocol}", "the container's", why, "PortTaken")
            for (protocol, port), why in sorted(taken.items())
        ]

    def remove(self, subject: Subject, observed: Mapping[Publication, str]) -> list[Step]:
        """Pure."""
        del subject, observed
        return []
