"""What the kernel counts of a container, and how the sums outlive the group that they were counted in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from controller.frozen import as_dict, dataclass

SUBSYSTEMS = {"oom_kills": "memory", "throttled_us": "cpu", "high": "memory"}
"""Counter → who counts it: on cgroup v1 each has its own groups."""


@dataclass(frozen=True, slots=True)
class Counts:
    """`throttled_us`: microseconds for which a cpu limit held it back. `high`: how often it went above
    memory.high. None: this kernel does not count it, or the group is not there.
    """

    oom_kills: int | None = None
    throttled_us: int | None = None
    high: int | None = None

    @property
    def any(self) -> bool:
        return bool(self.oom_kills or self.throttled_us or self.high)

    @property
    def text(self) -> str:
        """Only what has happened."""
        parts = (
            f"{self.oom_kills} killed out of memory" if self.oom_kills else "",
            f"throttled for {self.throttled_us / 1e6:.1f}s" if self.throttled_us else "",
            f"{self.high} times above memory.high" if self.high else "",
        )
        return ", ".join(each for each in parts if each)

    def to_json(self) -> dict[str, Any]:
        seconds = None if self.throttled_us is None else self.throttled_us / 1e6
        return {"oomKills": self.oom_kills, "throttledSeconds": seconds, "memoryHighEvents": self.high}


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted in the groups that are there; `groups`: their numbers by subsystem, which no other has."""

    counts: Counts
    groups: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """`seen`: what was counted in `groups` when they were looked at last; `before`: in all before them."""

    seen: Counts = Counts()
    before: Counts = Counts()
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        return _each(_sum, self.before, self.seen)

    def after(self, sample: Sample) -> Tally:
        """A new group counts from zero: what the one before it had counted is kept."""
        ended = Counts(**{name: self._ended(name, sample) for name in SUBSYSTEMS})
        seen = _each(_latest, self.seen, sample.counts)
        return Tally(seen, _each(_sum, self.before, ended), {**self.groups, **sample.groups})

    def _ended(self, name: str, sample: Sample) -> int | None:
        """What a group that is no more had counted."""
        subsystem, seen, live = SUBSYSTEMS[name], getattr(self.seen, name), getattr(sample.counts, name)
        if seen is None or live is None:
            return None
        known = self.groups.get(subsystem)
        return seen if known != sample.groups.get(subsystem, known) or live < seen else None

    def to_json(self) -> dict[str, Any]:
        return as_dict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Raises KeyError or TypeError for anything `to_json` did not write."""
        return cls(Counts(**value["seen"]), Counts(**value["before"]), dict(value["groups"]))


def _each(combine: Any, one: Counts, other: Counts) -> Counts:
    return Counts(**{name: combine(getattr(one, name), getattr(other, name)) for name in SUBSYSTEMS})


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _latest(seen: int | None, live: int | None) -> int | None:
    return seen if live is None else live
