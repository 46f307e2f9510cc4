"""limits.memory: max, high, low, min, swap and oomGroup, on cgroup v1 and v2.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. The kernel counts in pages and
rounds down (mm/page_counter.c); "no limit" reads as `max` on v2 and as the largest count of pages on v1.
"""

from __future__ import annotations

from typing import Any

from controller.aspects._knobs import Desired, Knob, KnobAspect, each_alone, live_keys, mapping
from controller.errors import HostLacks
from controller.model.facts import Facts
from controller.model.quantity import parse_bytes

LONG_MAX = 2**63 - 1

KEYS = ("max", "high", "low", "min", "swap", "oomGroup")
V2_FILES = {"max": "memory.max", "high": "memory.high", "low": "memory.low", "min": "memory.min"}
MEMSW = "memory.memsw.limit_in_bytes"
V1_FILES = {"max": "memory.limit_in_bytes", "high": "memory.soft_limit_in_bytes"}


class Memory(KnobAspect):
    name = "memory"
    section = "limits.memory"
    keys = live_keys("memory", KEYS)

    def parse(self, section: Any, facts: Facts) -> Desired | None:
        """Pure. Raises HostLacks where there is no memory subsystem at all; a limit that is written is set,
        whatever other key this host lacks.
        """
        written = mapping(section)
        wanted = [key for key in KEYS if key in written]
        if not wanted:
            return None
        version = facts.version("memory")
        if version is None:
            raise HostLacks("limits.memory: the kernel or the cgroup layout has no memory subsystem")
        make = _v2_knob if version == 2 else _v1_knob
        forced = bool(written.get("force", False))
        return each_alone(wanted, lambda key: (make(key, written, facts, forced=forced),), "memory.{}".format)


def _pages(amount: int, facts: Facts) -> int:
    return amount // facts.page_size * facts.page_size


def _v2_knob(key: str, written: Any, facts: Facts, *, forced: bool) -> Knob:
    if key == "oomGroup":
        word = str(int(bool(written[key])))
        return Knob("memory.oomGroup", "memory", "memory.oom.group", word, word)
    text = str(written[key])
    if key == "swap" and not facts.swap_limits:
        raise HostLacks("limits.memory.swap: this kernel does not account swap (memory.swap.max is missing)")
    value = "max" if text == "max" else str(_pages(parse_bytes(text), facts))
    file = "memory.swap.max" if key == "swap" else V2_FILES[key]
    used = "memory.current" if key == "max" else ""
    return Knob(f"memory.{key}", "memory", file, value, value, used, forced)


def _v1_knob(key: str, written: Any, facts: Facts, *, forced: bool) -> Knob:
    if key in {"low", "min"}:
        raise HostLacks(f"limits.memory.{key}: cgroup v1 has no such protection; it needs cgroup v2")
    if key == "oomGroup":
        raise HostLacks(
            "limits.memory.oomGroup: on cgroup v1 the kernel ends one process; it needs cgroup v2"
        )
    if key == "swap":
        return _v1_swap(written, facts)
    value, accepted = _v1_amount(str(written[key]), 0, facts)
    used = "memory.usage_in_bytes" if key == "max" else ""
    below = MEMSW if key == "max" and facts.swap_limits and "swap" not in written else ""
    return Knob(f"memory.{key}", "memory", V1_FILES[key], value, accepted, used, forced, below=below)


def _v1_swap(written: Any, facts: Facts) -> Knob:
    """v1 limits memory and swap together, so the file holds the sum and must stay above memory's own limit."""
    if not facts.swap_limits:
        raise HostLacks("limits.memory.swap: this kernel does not account swap (memory.memsw is missing)")
    if "max" not in written:
        raise HostLacks("limits.memory.swap: cgroup v1 limits memory and swap together; write memory.max too")
    unlimited = "max" in (str(written["max"]), str(written["swap"]))
    base = 0 if unlimited else parse_bytes(str(written["max"])) // facts.page_size * facts.page_size
    value, accepted = _v1_amount("max" if unlimited else str(written["swap"]), base, facts)
    return Knob("memory.swap", "memory", MEMSW, value, accepted, order=1)


def _v1_amount(text: str, base: int, facts: Facts) -> tuple[str, str]:
    if text == "max":
        return "-1", str(_pages(LONG_MAX, facts))
    value = str(base + _pages(parse_bytes(text), facts))
    return value, value
