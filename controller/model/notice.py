"""What `notify` asks for, as this host can watch for it, and what is said when it comes. Pure values."""

from __future__ import annotations

from typing import Literal

from controller.frozen import dataclass

EVENTS = {
    "memory.pressure": "MemoryPressure",
    "cpu.pressure": "CpuPressure",
    "io.pressure": "IoPressure",
    "memory.high": "MemoryHigh",
    "oom": "OomKilled",
}
"""What an entry is `on` → the type of its event."""

How = Literal["trigger", "level", "threshold", "oom", "counter"]


@dataclass(frozen=True, slots=True)
class Watch:
    """How the kernel tells of it.

    `trigger`: `argument` is written to a pressure file, which then polls as exceptional (accounting/psi.rst);
    `level`, `threshold` and `oom`: an eventfd by v1's cgroup.event_control (cgroup-v1/memory.rst, sections 9 to
    11), a threshold at the soft limit; `counter`: the one of that name in `file` has grown.
    """

    how: How
    subsystem: str
    file: str
    argument: str = ""


OOM_ON_V1 = Watch("oom", "memory", "memory.oom_control")
"""The kernel tells a little before it kills; that it has killed, a counter says."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry. `condition`: its own words, as in "some 150ms/1s"."""

    on: str
    condition: str
    watch: Watch
    every_ms: int
    command: tuple[str, ...] = ()
    timeout_ms: int = 0

    @property
    def event(self) -> str:
        return EVENTS[self.on]


def stalled(text: str, kind: str) -> str:
    """What a pressure file says of `some` or `full`: the share of the last 10 s, and all seconds so far."""
    line = next((each for each in text.splitlines() if each.startswith(kind + " ")), "")
    values = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
    share, total = values.get("avg10", "0"), int(values.get("total", "0"))
    return f"stalled {share} % of the last 10s, {total / 1e6:.1f}s in all"
