"""What `masu plan` and `masu status` found. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import GuardRefused, Problem
from controller.model.desired import DesiredSet
from controller.model.status import Condition, ContainerStatus, NetworkStatus, VolumeStatus
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


@dataclass(frozen=True, slots=True)
class Overview:
    """What is desired, and how everything is."""

    desired: DesiredSet
    containers: tuple[ContainerStatus, ...]
    networks: tuple[NetworkStatus, ...] = ()
    volumes: tuple[VolumeStatus, ...] = ()
