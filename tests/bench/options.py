"""How much is measured. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Numbers of samples; `counts` and `looked_at`: how many containers at once;
    `rounds` of inside and outside."""

    starts: int = 30
    counts: tuple[int, ...] = (50, 200)
    repairs: int = 200
    kills: int = 30
    edits: int = 120
    looked_at: tuple[int, ...] = (200,)
    idle_s: float = 10.0
    rounds: int = 7
    checkpoint_mib: int = 256
