"""What the kernel has counted of a container: read where it is, kept where it would be lost, told at the end."""

from __future__ import annotations

from typing import ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.counters import Counts, Sample, Tally
from controller.steps._base import Effect, Stage, Step, Wait


def counted(host: Host, name: str, group: str) -> Tally:
    """Read-only. What is kept, and what the group says now."""
    return (host.tallies.read(name) or Tally()).after(sample(host, group))


def sample(host: Host, group: str) -> Sample:
    """Read-only. The counters of the group that is there.

    v2: memory.events and cpu.stat of cgroup-v2.rst; v1: memory.oom_control (kernel 4.13), and cpu.stat in
    nanoseconds (sched-bwc.rst).
    """
    memory, cpu = host.facts.version("memory"), host.facts.version("cpu")
    kills = _words(host, group, "memory", "memory.events" if memory == 2 else "memory.oom_control")
    stat = _words(host, group, "cpu", "cpu.stat")
    throttled = stat.get("throttled_usec") if cpu == 2 else stat.get("throttled_time")
    found = Counts(
        oom_kills=kills.get("oom_kill"),
        throttled_us=throttled if throttled is None or cpu == 2 else throttled // 1000,
        high=kills.get("high"),
    )
    numbers = {each: host.tallies.number(group, each) for each in ("memory", "cpu")}
    return Sample(found, {each: number for each, number in numbers.items() if number})


def _words(host: Host, group: str, subsystem: str, file: str) -> dict[str, int]:
    lines = (line.split() for line in (host.cgroups.read(group, subsystem, file) or "").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


@dataclass(frozen=True, slots=True)
class ForgetCounters(Step):
    """Take the kept sums away; what they were is the container's last event but one."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    total: Counts

    @property
    def text(self) -> str:
        return f"forget counters ({self.total.text or 'nothing has happened'})"

    def apply(self, host: Host) -> Wait | None:
        host.tallies.remove(self.container)
        return None
