"""How the checkpoints of a container have gone so far. Pure values and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from controller.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Attempts:
    """`failures`: of its schedule, all that there were. `said`: why the last one failed; empty: one was made since.

    `failed_ms`, `made_ms`: when one failed or was made last, in milliseconds since 1970; 0: never.
    """

    failures: int = 0
    said: str = ""
    failed_ms: int = 0
    made_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Attempts:
        """Raises KeyError, TypeError or ValueError for what is no such value."""
        return cls(int(value["failures"]), str(value["said"]), int(value["failed_ms"]), int(value["made_ms"]))
