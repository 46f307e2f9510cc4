"""A `kind: Node` as its spec means it: what this host keeps for itself, and how much may be promised. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from controller.frozen import dataclass
from controller.model.quantity import parse_bytes, parse_cpu
from controller.model.resource import NODE, Resource

Policy = Literal["allow", "warn", "refuse"]
Rule = Literal["guarantees", "limits"]

USUAL: Mapping[Rule, Policy] = {"guarantees": "warn", "limits": "allow"}
"""What holds where nothing is written."""


@dataclass(frozen=True, slots=True)
class Node:
    """`name` is empty where there is no document. `reserved`: memory in bytes, cpu in thousandths, pids."""

    name: str = ""
    reserved: Mapping[str, int] = field(default_factory=dict)
    overcommit: Mapping[Rule, Policy] = field(default_factory=lambda: USUAL)

    @classmethod
    def of(cls, written: Resource) -> Node:
        reserved: Mapping[str, Any] = written.section("reserved") or {}
        amounts = {
            "memory": parse_bytes(str(reserved.get("memory", 0))),
            "cpu": parse_cpu(str(reserved.get("cpu", 0))),
            "pids": int(reserved.get("pids", 0)),
        }
        return cls(written.name, amounts, {**USUAL, **(written.section("overcommit") or {})})


def node_in(resources: Mapping[str, Resource]) -> Node:
    """The host's node; there is at most one document of it."""
    written = next((each for each in resources.values() if each.kind == NODE), None)
    return Node.of(written) if written else Node()


@dataclass(frozen=True, slots=True)
class Promise:
    """One sum: bytes, thousandths of cpus, or tasks.

    `unlimited`: how many containers have no such limit, and so are not counted.
    `shown`: total, reserved and promised, for people.
    """

    key: str
    total: int
    reserved: int
    promised: int
    containers: int
    unlimited: int
    policy: str
    shown: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        return self.promised > max(0, self.total - self.reserved)

    def to_json(self) -> dict[str, Any]:
        """Of cpus with a fraction."""
        size = 1000 if self.key.startswith("cpu.") else 1
        total, reserved, promised = (
            each // size if each % size == 0 else each / size
            for each in (self.total, self.reserved, self.promised)
        )
        return {
            "key": self.key,
            "overcommit": self.policy,
            "total": total,
            "reserved": reserved,
            "promised": promised,
            "containers": self.containers,
            "unlimited": self.unlimited,
        }


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`name` is empty where no document describes the host. `waiting`: containers for which there is no room."""

    name: str
    overcommit: Mapping[Rule, Policy]
    promises: tuple[Promise, ...]
    waiting: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name or None,
            "overcommit": dict(self.overcommit),
            "promises": [each.to_json() for each in self.promises],
            "waiting": list(self.waiting),
        }
