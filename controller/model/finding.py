"""One line of `masu doctor`. Pure values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from controller.frozen import dataclass

Level = Literal["ok", "limited", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`limited`: masu works, but not this; `missing`: masu cannot work. `fix` says what to do, empty when ok."""

    subject: str
    level: Level
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
