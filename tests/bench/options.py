"""How much is measured. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Numbers of samples; `counts` and `looked_at`: how many containers at once;
    `rounds` of inside and outside; `readings`: new processes that read `specs` of them each."""

    starts: int = 30
    counts: tuple[int, ...] = (50, 200)
    repairs: int = 200
    kills: int = 30
    edits: int = 120
    looked_at: tuple[int, ...] = (200,)
    idle_s: float = 10.0
    rounds: int = 7
    checkpoint_mib: int = 256
    pushes: int = 20
    specs: int = 1000
    readings: int = 5
