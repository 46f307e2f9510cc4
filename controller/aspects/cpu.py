"""limits.cpu: bandwidth, weight, and the cpus and memory nodes to run on, on cgroup v1 and v2.

Sources: Documentation/admin-guide/cgroup-v2.rst (cpu, cpuset), scheduler/sched-bwc.rst, cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controller.aspects._knobs import Desired, Knob, KnobAspect, each_alone, live_keys, mapping
from controller.errors import HostLacks
from controller.model.facts import Facts
from controller.model.quantity import format_cpu_list, parse_cpu, parse_cpu_list

PERIOD_US = 100_000
"""The kernel's default period; quota is what changes, as every other tool does it."""


class Cpu(KnobAspect):
    name = "cpu"
    section = "limits.cpu"
    keys = live_keys("cpu", ("max", "weight", "cpus", "mems"))

    def parse(self, section: Any, facts: Facts) -> Desired | None:
        """Pure. What is written is set, whatever subsystem, cpu or memory node another key asks for in vain."""
        written = mapping(section)
        makers: dict[str, Callable[[Any, Facts], tuple[Knob, ...]]] = {
            "max": _max,
            "weight": _weight,
            "cpus": _cpus,
            "mems": _mems,
        }
        wanted = [key for key in makers if key in written]
        return each_alone(wanted, lambda key: makers[key](written[key], facts), "cpu.{}".format) or None


def _version(subsystem: str, key: str, facts: Facts) -> int:
    version = facts.version(subsystem)
    if version is None:
        raise HostLacks(f"limits.cpu.{key}: the kernel or the cgroup layout has no {subsystem} subsystem")
    return version


def _max(value: Any, facts: Facts) -> tuple[Knob, ...]:
    version = _version("cpu", "max", facts)
    quota = None if value == "max" else parse_cpu(value) * PERIOD_US // 1000
    if version == 2:
        text = f"{'max' if quota is None else quota} {PERIOD_US}"
        return (Knob("cpu.max", "cpu", "cpu.max", text, text),)
    period, quota_text = str(PERIOD_US), "-1" if quota is None else str(quota)
    return (
        Knob("cpu.max.period", "cpu", "cpu.cfs_period_us", period, period),
        Knob("cpu.max", "cpu", "cpu.cfs_quota_us", quota_text, quota_text),
    )


def _weight(value: Any, facts: Facts) -> tuple[Knob, ...]:
    """v1 counts in shares of 1024; the kernel itself converts weights so (kernel/sched/core.c)."""
    if _version("cpu", "weight", facts) == 2:
        return (Knob("cpu.weight", "cpu", "cpu.weight", str(value), str(value)),)
    shares = str((int(value) * 1024 + 50) // 100)
    return (Knob("cpu.weight", "cpu", "cpu.shares", shares, shares),)


def _cpus(value: Any, facts: Facts) -> tuple[Knob, ...]:
    return _set_of("cpus", "cpu", value, facts.cpus, facts)


def _mems(value: Any, facts: Facts) -> tuple[Knob, ...]:
    return _set_of("mems", "memory node", value, facts.mems, facts)


def _set_of(key: str, noun: str, value: Any, have: frozenset[int], facts: Facts) -> tuple[Knob, ...]:
    _version("cpuset", key, facts)
    wanted = parse_cpu_list(str(value))
    absent = wanted - have
    if absent:
        raise HostLacks(
            f"limits.cpu.{key}: this host has no {noun} {format_cpu_list(absent)}, only {format_cpu_list(have)}"
        )
    text = format_cpu_list(wanted)
    return (Knob(f"cpu.{key}", "cpuset", f"cpuset.{key}", text, text),)
