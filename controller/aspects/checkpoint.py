"""checkpoint: what is kept of a container's memory, and how; and the end of a restore that somebody was killed in.

Making one and restoring one are acts, not states: `controller.reconcile.checkpointing`. Nothing here is fixed at
birth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.checkpoints.policy import Policy, parse
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.checkpoint import ENDED, Pending
from controller.model.facts import Facts
from controller.model.status import RESTORED, Condition
from controller.steps._base import Effect, Step
from controller.steps.checkpointing import (
    ClearScratch,
    NoteLineage,
    PutBackFiles,
    RemoveCheckpoints,
    SettleFiles,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """`launching`: a restore is at it, or has ended without anybody to write that down.
    `lineage`: as noted on disk, asked only where somebody will want to know.
    `restored`: from which checkpoint the run goes on.

    Asked only before the container goes: `scratch`: there are images; `identities` of its checkpoints;
    `attempted`: it is noted how they went.
    """

    pending: Pending
    launching: bool = False
    lineage: str | None = None
    restored: str = ""
    scratch: bool = False
    identities: tuple[str, ...] = ()
    attempted: bool = False


class Checkpoint:
    name = "checkpoint"
    section = "checkpoint"
    keys: Mapping[str, Effect] = {
        f"checkpoint.{each}": Effect.LIVE
        for each in (
            "never",
            "schedule",
            "onFailure",
            "onReboot",
            "onShutdown",
            "mode",
            "keep",
            "pins",
            "minFree",
            "tcp",
            "encryption",
            "volumes",
        )
    }

    def parse(self, section: Any, facts: Facts) -> Policy:
        """Pure. Without a section everything is as by default."""
        del facts
        return parse(section or {})

    def birth(self, desired: Policy) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Policy | None) -> Seen:
        """Read-only. Two names beside the layer, as long as nothing is in the middle of a restore."""
        pending = host.snapshots.pending(subject.name)
        if desired is None:
            known = host.checkpoints.checkpoints(subject.name)
            own = tuple(each.id for each in known if each.container == subject.name)
            scratch, lineage = subject.name in host.scratches.names(), host.checkpoints.lineage(subject.name)
            tried = host.attempts.read(subject.name) is not None
            return Seen(pending, lineage=lineage, scratch=scratch, identities=own, attempted=tried)
        launching = bool(pending) and not subject.pid and _launching(subject, host)
        lineage = host.checkpoints.lineage(subject.name) if desired.restores else None
        restored = subject.record.restored if subject.record and subject.pid else ""
        return Seen(pending, launching, lineage, restored)

    def diff(self, subject: Subject, desired: Policy, observed: Seen) -> list[Step]:
        """Pure. Whoever runs, runs with the files that are in force; if nobody does, those from before return."""
        steps: list[Step] = []
        if observed.pending and not observed.launching:
            name, group = subject.name, subject.group
            steps.append(SettleFiles(name) if subject.pid else PutBackFiles(name, group))
        lineage = _lineage(subject, desired)
        if desired.restores and lineage not in {None, observed.lineage}:
            steps.append(NoteLineage(subject.name, lineage or ""))
        return steps

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. The layer itself goes with all that is beside it."""
        steps: list[Step] = []
        if observed.scratch:
            steps.append(ClearScratch(subject.name))
        if observed.identities or observed.lineage or observed.attempted:
            steps.append(RemoveCheckpoints(subject.name, observed.identities))
        return steps

    def remarks(self, desired: Policy, observed: Seen) -> Iterable[Condition]:
        """Pure."""
        del desired
        if observed.restored:
            message = f"goes on from checkpoint {observed.restored}"
            yield Condition(RESTORED, status=True, reason="FromCheckpoint", message=message)


def _lineage(subject: Subject, desired: Policy) -> str | None:
    """What should be noted; None: whatever is."""
    record = subject.record
    if subject.pid:
        return (record.lineage if record else "") or None
    return ENDED if desired.stopped else None


def _launching(subject: Subject, host: Host) -> bool:
    if subject.record is None or subject.record.phase != "launching":
        return False
    known = host.runtime.state(subject.name, subject.group)
    return known.launching or bool(known.pid)
