"""From a written container to what each aspect wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.aspects import ASPECTS
from controller.aspects._bundle import compose
from controller.errors import HostLacks
from controller.model.facts import Facts
from controller.model.frame import Frame
from controller.model.resource import Resource
from controller.model.status import Condition

LIFE = "life"


@dataclass(frozen=True, slots=True)
class Desired:
    """`parts`: aspect name → its desired value; an aspect that is not in it owns nothing.

    `lacks`: what this host cannot do of it; the rest converges all the same.
    """

    name: str
    parts: Mapping[str, Any]
    frame: Frame
    lacks: tuple[Condition, ...]

    @property
    def watches_mounts(self) -> bool:
        """Whether a change of the container's mount table may be drift."""
        return "mounts" in self.parts


def desire(container: Resource, facts: Facts) -> Desired:
    """Pure. Parse every section; the parts of the birth are put together for `life`."""
    parts: dict[str, Any] = {}
    lacks: list[Condition] = []
    births = []
    for aspect in ASPECTS:
        if aspect.name == LIFE:
            continue
        try:
            part = aspect.parse(container.section(aspect.section) if aspect.section else None, facts)
        except HostLacks as lack:
            lacks.append(Condition("HostLacks", status=True, reason=_camel(aspect.name), message=str(lack)))
            continue
        if part is None:
            continue
        parts[aspect.name] = part
        birth = aspect.birth(part)
        if birth:
            births.append((aspect.name, birth))
    frame = compose(births)
    parts[LIFE] = _life(container, frame, facts)
    return Desired(container.name, parts, frame, tuple(lacks))


def _life(container: Resource, frame: Frame, facts: Facts) -> Any:
    life = next(aspect for aspect in ASPECTS if aspect.name == LIFE)
    section = {
        "state": container.section("state"),
        "stop": container.section("process.stop"),
        "restart": container.section("restart"),
        "frame": frame,
    }
    return life.parse(section, facts)


def _camel(name: str) -> str:
    return "No" + name[:1].upper() + name[1:]
