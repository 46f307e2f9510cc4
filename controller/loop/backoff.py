"""How long to leave something alone: after failures, and in a fight over an owned key. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from controller.frozen import dataclass

INITIAL_S = 0.2
MAXIMUM_S = 60.0

FIGHT_REPAIRS = 8
FIGHT_WINDOW_S = 5.0
FIGHT_FIRST_S = 1.0
FIGHT_MAXIMUM_S = 30.0
"""Eight repairs of one key within five seconds are no accident any more."""
FIGHT_LOOK_S = 0.25
"""While one key is left alone the others are looked after, but not with every nudge of the fight."""


def retry_delay(failures: int, initial_s: float = INITIAL_S, maximum_s: float = MAXIMUM_S) -> float:
    """Pure. Seconds until the next try after so many failures in a row: 0.2, 0.4, … 60."""
    return float(min(initial_s * 2 ** min(failures - 1, 20), maximum_s))


@dataclass(frozen=True, slots=True)
class Fight:
    """Repairs of the keys of one container. `recent`: key → moments; `level`: how often it has been slowed."""

    recent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    level: int = 0
    until: float = 0.0

    def contested(self, now: float) -> tuple[str, ...]:
        """Pure. Keys that somebody else keeps changing back."""
        return tuple(sorted(key for key, at in self.recent.items() if self._busy(at, now)))

    def _busy(self, at: Iterable[float], now: float) -> bool:
        window = FIGHT_WINDOW_S + (self.delay * 2 if self.level else 0.0)
        within = sum(moment > now - window for moment in at)
        return within >= (FIGHT_REPAIRS if self.level == 0 else 1)

    @property
    def delay(self) -> float:
        """Seconds that repairs are held back; 0 in peace."""
        return 0.0 if self.level == 0 else float(min(FIGHT_FIRST_S * 2 ** (self.level - 1), FIGHT_MAXIMUM_S))


def after_repairs(fight: Fight, keys: Iterable[str], now: float) -> Fight:
    """Pure. What is known after these keys were repaired now (none: nothing had to be)."""
    repaired = set(keys)
    recent = {key: (*fight.recent.get(key, ())[-FIGHT_REPAIRS:], now) for key in repaired}
    kept = {
        key: at
        for key, at in fight.recent.items()
        if key not in repaired and at[-1] > now - 2 * FIGHT_MAXIMUM_S
    }
    updated = replace(fight, recent={**kept, **recent})
    contested = updated.contested(now)
    if not contested:
        return replace(updated, level=0, until=0.0)
    if repaired.isdisjoint(contested):
        return updated
    slowed = replace(updated, level=min(updated.level + 1, 6))
    return replace(slowed, until=now + slowed.delay)
