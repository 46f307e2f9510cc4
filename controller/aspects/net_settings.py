"""net_settings: kernel settings of a network namespace that masu keeps, and of the interfaces in it.

They are written from the host's side, before the container is born: root inside a user namespace has no rights over
a namespace that is not its own. Source: Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.network import SetNetworkSetting

Settings = Mapping[str, tuple[str, str]]
"""File below /proc/sys/net → (key, value)."""


class NetSettings:
    name = "net_settings"
    section = "net_settings"
    keys: Mapping[str, Effect] = {"networks.sysctls": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Settings | None:
        """Pure. `section`: resolved by `controller.reconcile.desired`."""
        del facts
        return {path: (key, _words(value)) for path, (key, value) in section.items()} if section else None

    def birth(self, desired: Settings) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Settings | None) -> Mapping[str, str | None]:
        """Read-only."""
        return {path: host.namespaces.setting(subject.name, path) for path in desired or ()}

    def diff(self, subject: Subject, desired: Settings, observed: Mapping[str, str | None]) -> list[Step]:
        """Pure."""
        return [
            SetNetworkSetting(
                subject.name, key, _words(observed.get(path)) or "absent", value, subject.name, path
            )
            for path, (key, value) in desired.items()
            if _words(observed.get(path)) != value
        ]

    def remove(self, subject: Subject, observed: Mapping[str, str | None]) -> list[Step]:
        """Pure. They go with the namespace."""
        del subject, observed
        return []


def _words(text: str | None) -> str:
    return " ".join((text or "").split())
