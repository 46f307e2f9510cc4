"""forwarding: whether the host passes packets on, which containers on bridges need; ip-sysctl.rst.

It is turned on where it is off, after the packet filter is in place, and never turned off: others may need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.status import Drift
from controller.steps._base import Effect, Step
from controller.steps.network import SetNetworkSetting

FILES = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}
ACCEPT_ALWAYS = "2"
"""Of accept_ra: router advertisements count although the host forwards."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`values`: version → whether it forwards, None: it cannot. `endangered`: links that have a route by router
    advertisements, which a host that forwards ignores."""

    values: Mapping[int, str | None]
    endangered: tuple[str, ...] = ()


class Forwarding:
    name = "forwarding"
    section = "forwarding"
    keys: Mapping[str, Effect] = {"forwarding": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> frozenset[int] | None:
        """Pure. → versions of IP."""
        del facts
        return section or None

    def birth(self, desired: frozenset[int]) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: frozenset[int] | None) -> Seen:
        """Read-only."""
        values = {each: host.namespaces.setting("", FILES[each]) for each in sorted(desired or ())}
        off = values.get(6) is not None and (values[6] or "").strip() == "0"
        return Seen(values, _endangered(host) if off else ())

    def diff(self, subject: Subject, desired: frozenset[int], observed: Seen) -> list[Step]:
        """Pure."""
        return [
            SetNetworkSetting(
                subject.name, f"forwarding.ipv{version}", value.strip(), "1", "", FILES[version]
            )
            for version, value in observed.values.items()
            if value is not None and value.strip() == "0" and not (version == 6 and observed.endangered)
        ]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Others may need it by now."""
        del subject, observed
        return []

    def verify(self, desired: frozenset[int], observed: Seen) -> list[Drift]:
        """Pure. What is not done for the host's own sake."""
        if not observed.endangered:
            return []
        links = ", ".join(observed.endangered)
        live = f"0: it would cost this host its own route by router advertisements on {links};"
        fix = f"set net.ipv6.conf.{observed.endangered[0]}.accept_ra to 2 first"
        return [Drift("forwarding", "forwarding.ipv6", "1", f"{live} {fix}")]


def _endangered(host: Host) -> tuple[str, ...]:
    numbers = {each.index for each in host.links.routes("") if each.advertised}
    names = [each.name for each in host.links.links("") or () if each.index in numbers]
    return tuple(
        name
        for name in names
        if (host.namespaces.setting("", f"/proc/sys/net/ipv6/conf/{name}/accept_ra") or "").strip()
        != ACCEPT_ALWAYS
    )
