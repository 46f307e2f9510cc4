"""local_ports: ports published on 127.0.0.1 lead from the host's loopback onto a bridge; ip-sysctl.rst.

The packet filter keeps containers from the host's own loopback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.attachment import Bridge
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.network import SetNetworkSetting


class LocalPorts:
    name = "local_ports"
    section = "bridge"
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> str | None:
        """Pure. → the setting's file."""
        del facts
        bridge: Bridge | None = section
        publishes = bridge is not None and bridge.publishes
        return f"/proc/sys/net/ipv4/conf/{bridge.link}/route_localnet" if bridge and publishes else None

    def birth(self, desired: str) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: str | None) -> str | None:
        """Read-only."""
        return host.namespaces.setting("", desired) if desired else None

    def diff(self, subject: Subject, desired: str, observed: str | None) -> list[Step]:
        """Pure. Nothing observed: the bridge has yet to be made."""
        live = (observed or "absent").strip()
        if live == "1":
            return []
        return [SetNetworkSetting(subject.name, "", "bridge.route_localnet", desired, "1", live)]

    def remove(self, subject: Subject, observed: str | None) -> list[Step]:
        """Pure. It goes with the bridge."""
        del subject, observed
        return []
