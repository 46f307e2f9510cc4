"""What the kernel counts of a container, and how the sums outlive the group that they were counted in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


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
class Tally:
    """`seen`: what the group that is there now had counted when it was looked at last; `before`: the sum of all
    groups before it.

    A new group counts from zero, so a counter that has gone back belongs to another one.
    """

    seen: Counts = Counts()
    before: Counts = Counts()

    @property
    def total(self) -> Counts:
        return _each(_sum, self.before, self.seen)

    def after(self, live: Counts) -> Tally:
        before = _each(
            lambda ago, ended: _sum(ago, ended or None), self.before, _each(_ended, self.seen, live)
        )
        return Tally(_each(_latest, self.seen, live), before)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Raises KeyError or TypeError for anything `to_json` did not write."""
        return cls(Counts(**value["seen"]), Counts(**value["before"]))


def _each(combine: Any, one: Counts, other: Counts) -> Counts:
    names = [field.name for field in fields(Counts)]
    return Counts(**{name: combine(getattr(one, name), getattr(other, name)) for name in names})


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _latest(seen: int | None, live: int | None) -> int | None:
    return seen if live is None else live


def _ended(seen: int | None, live: int | None) -> int:
    """What a group that is no more had counted."""
    return seen if seen is not None and live is not None and live < seen else 0
