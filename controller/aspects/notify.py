"""notify: telling user space before it hurts. What can be watched for here; the daemon watches.

Sources: Documentation/accounting/psi.rst; cgroup-v1/memory.rst, sections 7, 9, 10 and 11; cgroup-v2.rst, memory.
Nothing of it is state of the kernel that others could change, so nothing ever differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import CORE, Facts
from controller.model.notice import OOM_ON_V1, Notice, Watch
from controller.model.quantity import format_duration, parse_duration, parse_stall
from controller.model.status import HOST_LACKS, LIMITED, Condition
from controller.steps._base import Effect, Step

LEVEL_FOR = {"some": "medium", "full": "critical"}
"""v1's level that comes nearest, where the kernel has no pressure files."""
NO_PSI = "this kernel accounts no pressure: boot with psi=1 (it needs CONFIG_PSI)"


@dataclass(frozen=True, slots=True)
class Watching:
    """`said`: what cannot be watched for here, or only more coarsely."""

    notices: tuple[Notice, ...]
    said: tuple[Condition, ...] = ()


class Notify:
    name = "notify"
    section = "notify"
    keys: Mapping[str, Effect] = {"notify": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Watching | None:
        """Pure. One entry that cannot be watched for here takes nothing from the others."""
        notices: list[Notice] = []
        said: list[Condition] = []
        for index, entry in enumerate(section or ()):
            try:
                watch, remark = _watch(entry, facts)
            except HostLacks as lack:
                said.append(_condition(HOST_LACKS, f"No{_camel(entry['on'])}", index, str(lack)))
                continue
            notices.append(_notice(entry, watch))
            if remark:
                said.append(_condition(LIMITED, f"Coarse{_camel(entry['on'])}", index, remark))
        return Watching(tuple(notices), tuple(said)) if section else None

    def birth(self, desired: Watching) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Watching | None) -> None:
        """Read-only."""
        del subject, host, desired

    def diff(self, subject: Subject, desired: Watching, observed: None) -> list[Step]:
        """Pure."""
        del subject, desired, observed
        return []

    def remove(self, subject: Subject, observed: None) -> list[Step]:
        """Pure."""
        del subject, observed
        return []

    def remarks(self, desired: Watching, observed: None) -> Iterable[Condition]:
        """Pure."""
        del observed
        return desired.said


def _notice(entry: Mapping[str, Any], watch: Watch) -> Notice:
    words = [f"{key} {entry[key]}" for key in ("some", "full", "level") if key in entry]
    return Notice(
        on=entry["on"],
        condition=", or ".join(words),
        watch=watch,
        every_ms=parse_duration(str(entry.get("every", "10s"))),
        command=tuple(entry.get("exec", ())),
        timeout_ms=parse_duration(str(entry.get("timeout", "5s"))),
    )


def _watch(entry: Mapping[str, Any], facts: Facts) -> tuple[Watch, str]:
    """How it is watched for here, and in what it is less than elsewhere. Raises HostLacks."""
    on = entry["on"]
    if on.endswith(".pressure"):
        return _pressure(on, entry, facts)
    version = facts.version("memory")
    if version is None:
        raise HostLacks("the kernel or the cgroup layout has no memory subsystem")
    if version == 2:
        return Watch("counter", "memory", "memory.events", "high" if on == "memory.high" else "oom_kill"), ""
    if on == "oom":
        return OOM_ON_V1, ""
    coarse = "cgroup v1 tells when use crosses the soft limit, not when the container is slowed down"
    return Watch("threshold", "memory", "memory.usage_in_bytes"), coarse


def _pressure(on: str, entry: Mapping[str, Any], facts: Facts) -> tuple[Watch, str]:
    kind = next((each for each in ("some", "full") if each in entry), "")
    has_level = on == "memory.pressure" and facts.version("memory") == 1
    if kind and facts.pressure and facts.hierarchy(CORE):
        return _trigger(on, kind, str(entry[kind]), facts)
    if has_level and not kind:
        return Watch("level", "memory", "memory.pressure_level", entry["level"]), ""
    if has_level:
        level = entry.get("level", LEVEL_FOR[kind])
        found = Watch("level", "memory", "memory.pressure_level", level)
        return found, f"no pressure file for {on} here: cgroup v1's level {level} is watched instead"
    if not kind:
        raise HostLacks("level is cgroup v1's alone: write some or full as well")
    raise HostLacks(f"{on} needs a cgroup2 mount" if facts.pressure else NO_PSI)


def _trigger(on: str, kind: str, written: str, facts: Facts) -> tuple[Watch, str]:
    """Who lacks CAP_SYS_RESOURCE gets windows of whole two seconds (psi.rst): the same share of a longer one."""
    stall, window = parse_stall(written)
    unit = facts.pressure_window_ms
    longer = -(-window // unit) * unit
    watched = f"{kind} {stall * 1000 * longer // window} {longer * 1000}"
    coarse = (
        f"without CAP_SYS_RESOURCE the kernel looks every two seconds: {kind} {written} is watched as"
        f" {format_duration(stall * longer // window)}/{format_duration(longer)}"
    )
    return Watch("trigger", CORE, on, watched), "" if longer == window else coarse


def _condition(kind: str, reason: str, index: int, message: str) -> Condition:
    return Condition(kind, status=True, reason=reason, message=f"notify[{index}]: {message}")


def _camel(on: str) -> str:
    return "".join(word.capitalize() for word in on.split("."))
