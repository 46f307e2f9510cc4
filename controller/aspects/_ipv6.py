"""IPv6 turned off on a link that is to have an address of it, by a host's default or by somebody; ip-sysctl.rst."""

from __future__ import annotations

from collections.abc import Iterable

from controller.aspects._base import Subject
from controller.host.ports import Host
from controller.steps._base import Step
from controller.steps.network import SetNetworkSetting


def is_off(host: Host, where: str, link: str, missing: Iterable[str]) -> bool:
    """Read-only. `missing`: the addresses that are to be added to it; without one of IPv6 nobody is asked."""
    if not any(":" in each for each in missing):
        return False
    return (host.namespaces.setting(where, _file(link)) or "").strip() == "1"


def turned_on(subject: Subject, key: str, where: str, link: str) -> Step:
    """Pure."""
    return SetNetworkSetting(subject.name, f"{key}.disable_ipv6", "1", "0", where, _file(link))


def _file(link: str) -> str:
    return f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6"
