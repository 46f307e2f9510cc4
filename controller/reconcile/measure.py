"""What is measured of a container that is to be told of its want. Read-only."""

from __future__ import annotations

from controller.host.ports import Host
from controller.model.facts import CORE
from controller.model.notice import Notice, stalled

MIB = 1 << 20
USED = {1: "memory.usage_in_bytes", 2: "memory.current"}
LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}


def measured(host: Host, group: str, notice: Notice) -> str:
    """Read-only. The entry's own words, and how it is now."""
    parts = [
        notice.condition,
        _stall(host, group, notice),
        _memory(host, group) if _of_memory(notice) else "",
    ]
    return "; ".join(each for each in parts if each)


def _of_memory(notice: Notice) -> bool:
    return notice.on.startswith("memory")


def _stall(host: Host, group: str, notice: Notice) -> str:
    if notice.watch.how != "trigger":
        return ""
    kind = notice.watch.argument.partition(" ")[0]
    return stalled(host.cgroups.read(group, CORE, notice.watch.file) or "", kind)


def _memory(host: Host, group: str) -> str:
    version = host.facts.version("memory")
    used = _number(host, group, USED[version]) if version else None
    limit = _number(host, group, LIMIT[version]) if version else None
    if used is None:
        return ""
    of = "" if limit is None or limit > 1 << 60 else f" of {limit / MIB:.1f}Mi"
    return f"{used / MIB:.1f}Mi in use{of}"


def _number(host: Host, group: str, file: str) -> int | None:
    text = host.cgroups.read(group, "memory", file) or ""
    return int(text) if text.isdigit() else None
