"""bridge_settings: kernel settings of a network's bridge. Source: Documentation/networking/ip-sysctl.rst.

Ports published on 127.0.0.1 lead from the host's loopback onto it (route_localnet; the packet filter keeps
containers from the host's own loopback). A gateway that goes takes no other address of its subnet along, which may
be somebody else's (promote_secondaries). Nobody is asked whether an address of IPv6 is taken (accept_dad): that
takes seconds.
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

ROOT = "/proc/sys/net"
Settings = Mapping[str, str]
"""File below /proc/sys/net → value."""


class BridgeSettings:
    name = "bridge_settings"
    section = "bridge"
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> Settings | None:
        """Pure."""
        del facts
        bridge: Bridge | None = section
        if bridge is None:
            return None
        return {
            f"{ROOT}/ipv4/conf/{bridge.link}/route_localnet": str(int(bridge.publishes)),
            f"{ROOT}/ipv4/conf/{bridge.link}/promote_secondaries": "1",
            f"{ROOT}/ipv6/conf/{bridge.link}/accept_dad": "0",
        }

    def birth(self, desired: Settings) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Settings | None) -> Mapping[str, str]:
        """Read-only. Without those of a bridge that has yet to be made, or of a protocol that this kernel lacks."""
        live = {path: host.namespaces.setting("", path) for path in desired or ()}
        return {path: value.strip() for path, value in live.items() if value is not None}

    def diff(self, subject: Subject, desired: Settings, observed: Mapping[str, str]) -> list[Step]:
        """Pure."""
        return [
            SetNetworkSetting(
                subject.name, f"bridge.{path.rpartition('/')[2]}", observed[path], value, "", path
            )
            for path, value in desired.items()
            if observed.get(path, value) != value
        ]

    def remove(self, subject: Subject, observed: Mapping[str, str]) -> list[Step]:
        """Pure. They go with the bridge."""
        del subject, observed
        return []
