"""sysctls: kernel settings that belong to one of the container's own namespaces, changed live.

Which ones are namespaced: Documentation/admin-guide/sysctl (kernel.rst for IPC, net.rst), as the OCI
runtimes know them. Others would change the host and are refused by `controller.spec.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.kernel import SetSysctl

Values = Mapping[str, str]


class Sysctls:
    name = "sysctls"
    section = "sysctls"
    keys: Mapping[str, Effect] = {"sysctls": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Values | None:
        """Pure. → key → value, white space as the kernel prints it."""
        del facts
        if not section:
            return None
        return {key: " ".join(str(value).split()) for key, value in sorted(section.items())}

    def birth(self, desired: Values) -> Birth:
        """Pure."""
        return Birth(Effect.LIVE, config={"linux": {"sysctl": dict(desired)}})

    def observe(self, subject: Subject, host: Host, desired: Values | None) -> Mapping[str, str | None]:
        """Read-only."""
        if not subject.pid:
            return {}
        return {key: host.inside.sysctl(subject.pid, key) for key in desired or ()}

    def diff(self, subject: Subject, desired: Values, observed: Mapping[str, str | None]) -> list[Step]:
        """Pure. Nothing observed at all means that there is no process to change."""
        return [
            SetSysctl(subject.name, subject.init, key, value, observed[key])
            for key, value in desired.items()
            if key in observed and observed[key] != value
        ]

    def remove(self, subject: Subject, observed: Mapping[str, str | None]) -> list[Step]:
        """Pure. They go with their namespaces."""
        del subject, observed
        return []
