"""What `masu plan` and `masu status` found. Pure values."""

from __future__ import annotations

from controller.errors import GuardRefused, Problem
from controller.frozen import dataclass
from controller.model.desired import DesiredSet
from controller.model.node import NodeStatus
from controller.model.status import Condition, ContainerStatus, GroupStatus, NetworkStatus, VolumeStatus
from controller.reconcile.plan import Plan


@dataclass(frozen=True, slots=True)
class Preview:
    """Plans with changes, and what stands in the way."""

    plans: tuple[Plan, ...]
    removed: tuple[str, ...]
    rejected: tuple[Problem, ...]
    frozen: str
    refused: GuardRefused | None
    lacks: tuple[tuple[str, Condition], ...]
    waits: tuple[tuple[str, str], ...] = ()
    """(key, why it cannot be as desired until somebody does something about it)."""
    limited: tuple[tuple[str, Condition], ...] = ()
    """(key, what is done but means less here than elsewhere)."""
    unfit: tuple[str, ...] = ()
    """Containers for which, or for whose edit, there is no room."""
    node: NodeStatus | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """What is desired, and how everything is."""

    desired: DesiredSet
    containers: tuple[ContainerStatus, ...]
    networks: tuple[NetworkStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    volumes: tuple[VolumeStatus, ...] = ()
    node: NodeStatus | None = None
    daemon: int = 0
    """The pid of whoever keeps all of this converged; 0: nobody."""
