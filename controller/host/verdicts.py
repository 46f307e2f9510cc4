"""The Verdicts port: in memory alone. Whoever is started anew asks anew."""

from __future__ import annotations

from controller.model.health import Health, Verdict
from controller.model.launch import Init


class Verdicts:
    """Every method may be called from any thread."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Init, Health, Verdict]] = {}

    def read(self, name: str, init: Init, health: Health) -> Verdict | None:
        found = self._said.get(name)
        return found[2] if found and found[:2] == (init, health) else None

    def say(self, name: str, init: Init, health: Health, verdict: Verdict) -> None:
        self._said[name] = (init, health, verdict)

    def forget(self, name: str) -> None:
        self._said.pop(name, None)
