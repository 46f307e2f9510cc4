"""local_ports: ports published on 127.0.0.1 lead from the host's loopback onto a bridge; ip-sysctl.rst.

The packet filter keeps containers from the host's own loopback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.attachment import Bridge
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.network import SetNetworkSetting


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file below /proc/sys/net, and what it is to hold."""

    path: str
    value: str


class LocalPorts:
    name = "local_ports"
    section = "bridge"
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> Wanted | None:
        """Pure."""
        del facts
        bridge: Bridge | None = section
        if bridge is None:
            return None
        return Wanted(f"/proc/sys/net/ipv4/conf/{bridge.link}/route_localnet", str(int(bridge.publishes)))

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> str | None:
        """Read-only."""
        return host.namespaces.setting("", desired.path) if desired else None

    def diff(self, subject: Subject, desired: Wanted, observed: str | None) -> list[Step]:
        """Pure. Nothing observed: the bridge has yet to be made, or this kernel has no IPv4."""
        if (observed or "0").strip() == desired.value:
            return []
        live = (observed or "absent").strip()
        return [
            SetNetworkSetting(subject.name, "bridge.route_localnet", live, desired.value, "", desired.path)
        ]

    def remove(self, subject: Subject, observed: str | None) -> list[Step]:
        """Pure. It goes with the bridge."""
        del subject, observed
        return []
