"""ports: whether the ports that a container publishes are its own; the packet filter leads them to it.

A port on which somebody of the host listened first stays theirs. Source: sock_diag(7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.firewall import Publication, withheld
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
    ) -> frozenset[Publication]:
        """Read-only. Those of its ports that are somebody else's."""
        del subject
        if not desired:
            return frozenset()
        return withheld(desired, host.firewall.published(), host.listeners.all())

    def diff(
        self, subject: Subject, desired: tuple[Publication, ...], observed: frozenset[Publication]
    ) -> list[Step]:
        """Pure. Who has the port has to let it go."""
        del subject, desired, observed
        return []

    def verify(self, desired: tuple[Publication, ...], observed: frozenset[Publication]) -> list[Drift]:
        """Pure."""
        return [
            Drift(
                self.name,
                f"ports.{port}/{protocol}",
                "the container's",
                "a program of this host listens there",
            )
            for protocol, port in sorted(
                {(each.protocol, each.host_port) for each in set(desired) & observed}
            )
        ]

    def remove(self, subject: Subject, observed: frozenset[Publication]) -> list[Step]:
        """Pure."""
        del subject, observed
        return []
