"""What is said about a container: drift, conditions, status. Pure values; the JSON shapes are stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from controller.frozen import dataclass
from controller.model.attempts import Attempts
from controller.model.counters import Counts
from controller.model.health import HEALTHY

HOST_LACKS = "HostLacks"
"""Type of a condition: what is asked for cannot be done here, and so nothing has converged."""
LIMITED = "Limited"
"""Type of a condition: it is done, but means less here than elsewhere."""
RESTORED = "Restored"
"""Type of a condition: the run goes on from a checkpoint."""
OF_THE_RUN = frozenset({HEALTHY, RESTORED})
"""Types of conditions that are always seen anew, and that it is good to have."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Kubernetes' habit: a type that is True or False, a reason in CamelCase, a message for people."""

    type: str
    status: bool
    reason: str
    message: str

    @property
    def good(self) -> bool:
        """Whether there is nothing that anybody has to know."""
        return self.status and self.type in OF_THE_RUN

    def to_json(self) -> dict[str, Any]:
        status = "True" if self.status else "False"
        return {"type": self.type, "status": status, "reason": self.reason, "message": self.message}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Condition:
        return cls(value["type"], value["status"] == "True", value["reason"], value["message"])


@dataclass(frozen=True, slots=True, order=True)
class Drift:
    """An owned key whose live value differs; both sides as the kernel would print them."""

    aspect: str
    key: str
    desired: str
    live: str
    reason: str = "NotReadBack"
    """Of a difference that no step can mend."""

    def to_json(self) -> dict[str, str]:
        return {"aspect": self.aspect, "key": self.key, "desired": self.desired, "live": self.live}


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of a space and how many are used; `mechanism`: what keeps it to that size."""

    size: int
    used: int
    mechanism: str

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "used": self.used, "mechanism": self.mechanism}


READY = "ready"
"""The verdict of a checkpoint that would be made."""


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """The newest that is not known to be damaged; `at` in milliseconds since 1970, `size` and `stored` in bytes."""

    id: str
    at: int
    size: int
    stored: int = 0
    frozen_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "time": self.at,
            "size": self.size,
            "stored": self.stored,
            "frozenMs": self.frozen_ms,
        }


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """What the spec asks for, the digest that it means, and that of the last start; empty: not known, or none."""

    reference: str
    digest: str
    running: str

    def to_json(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "digest": self.digest or None,
            "running": self.running or None,
        }


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One line of `masu status`."""

    name: str
    state: str
    pid: int
    converged: bool
    restarts: int
    exit_code: int | None
    conditions: tuple[Condition, ...]
    drift: tuple[Drift, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    """Those of the host that lead to it, as in "127.0.0.1:8080 → 80/tcp"; not those that are somebody else's."""
    counters: Counts = field(default_factory=Counts)
    disk: Disk | None = None
    """The space that its writable layer is in, if that has a size."""
    checkpoint: LastCheckpoint | None = None
    next_checkpoint: int = 0
    """Milliseconds since 1970; 0: none is scheduled."""
    verdict: str = ""
    """Whether the next one would be made, or why not."""
    attempts: Attempts | None = None
    """How those of its schedule have gone; None: it has none, or there was none."""
    image: ImageStatus | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "pid": self.pid or None,
            "converged": self.converged,
            "restarts": self.restarts,
            "exitCode": self.exit_code,
            "conditions": [each.to_json() for each in self.conditions],
            "drift": [each.to_json() for each in self.drift],
            "addresses": list(self.addresses),
            "ports": list(self.ports),
            "counters": self.counters.to_json(),
            "disk": self.disk.to_json() if self.disk else None,
            "image": self.image.to_json() if self.image else None,
            "checkpoint": {
                "last": self.checkpoint.to_json() if self.checkpoint else None,
                "next": self.next_checkpoint or None,
                "verdict": self.verdict or None,
                "failures": self.attempts.failures if self.attempts else 0,
                "lastFailure": (self.attempts and self.attempts.said) or None,
                "lastSuccess": (self.attempts and self.attempts.made_ms) or None,
            },
        }


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """`link`: its bridge on the host, if it has one. `containers`: name → addresses. `rules`: name →
    (packets, bytes) that it let through. `idle`: rules that are about nobody."""

    name: str
    type: str
    link: str
    converged: bool
    containers: Mapping[str, tuple[str, ...]]
    conditions: tuple[Condition, ...]
    drift: tuple[Drift, ...]
    rules: Mapping[str, tuple[int, int]]
    idle: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rules": [
                {"name": name, "packets": packets, "bytes": octets, "idle": name in self.idle}
                for name, (packets, octets) in self.rules.items()
            ],
            "type": self.type,
            "link": self.link or None,
            "converged": self.converged,
            "containers": {name: list(each) for name, each in self.containers.items()},
            "conditions": [each.to_json() for each in self.conditions],
            "drift": [each.to_json() for each in self.drift],
        }


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """`shares`: sorts of its budgets. `members`: container → the sorts that it shares with the others."""

    name: str
    shares: tuple[str, ...]
    converged: bool
    members: Mapping[str, tuple[str, ...]]
    conditions: tuple[Condition, ...]
    drift: tuple[Drift, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shares": list(self.shares),
            "converged": self.converged,
            "members": {name: list(sorts) for name, sorts in self.members.items()},
            "conditions": [each.to_json() for each in self.conditions],
            "drift": [each.to_json() for each in self.drift],
        }


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """`state`: used by containers, unused, kept although no file defines it, or absent. `path`: where the host has
    what is in it."""

    name: str
    state: str
    disk: Disk
    path: str
    converged: bool
    containers: tuple[str, ...]
    conditions: tuple[Condition, ...]
    drift: tuple[Drift, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            **self.disk.to_json(),
            "path": self.path,
            "converged": self.converged,
            "containers": list(self.containers),
            "conditions": [each.to_json() for each in self.conditions],
            "drift": [each.to_json() for each in self.drift],
        }
