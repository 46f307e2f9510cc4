"""Which checkpoints may take the place of a new start, and in which order. Pure.

Only those of the run that was interrupted: a *lineage* begins with every start that goes on from nothing, and
whoever is restored goes on with that of its checkpoint. What somebody has ended on purpose, or what was started
anew since, never comes back by itself.

Whoever crashes right after a restore may have been crashing already when that checkpoint was made, as may whoever
crashes from one again and again: an older one comes next.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.checkpoints.policy import Policy
from controller.model.checkpoint import ENDED, Checkpoint
from controller.model.record import Record

MOST = 3
"""As many are tried for one end: each may take as long as a restore."""
TRIES = 3
"""As often in a row one is gone on from, although it always ended in a crash."""


def candidates(
    found: Iterable[Checkpoint], policy: Policy, record: Record | None, boot_id: str, lineage: str | None
) -> tuple[Checkpoint, ...]:
    """Newest first; none: it is to be started.

    `found`: of this container. `record`: as it was left, by this boot or by another, with the exit and the back-off
    after it. `lineage`: what was noted of the last run, on disk; None: nothing; `ENDED`: it was ended on purpose.
    """
    own = sorted((each for each in found if _is_own(each)), key=lambda each: each.id, reverse=True)
    if record is None or record.boot_id != boot_id:
        return _after_reboot(own, policy, boot_id, lineage)
    return _after_end(_of(own, record.lineage), policy, record)


def _after_reboot(
    own: list[Checkpoint], policy: Policy, boot_id: str, lineage: str | None
) -> tuple[Checkpoint, ...]:
    newest = own[0].origin if own else None
    if policy.on_reboot != "restore" or newest is None or lineage == ENDED:
        return ()
    if newest.boot_id == boot_id and not newest.ended:
        return ()
    return _of(own, newest.lineage if lineage is None else lineage)


def _after_end(own: tuple[Checkpoint, ...], policy: Policy, record: Record) -> tuple[Checkpoint, ...]:
    if record.intent:
        newest = own[0].origin if own else None
        was_put_by = newest is not None and newest.ended and newest.boot_ms >= record.launched_at
        return own if was_put_by and policy.on_reboot == "restore" else ()
    interrupted = record.phase == "launching"  # masu ended in the middle of a restore
    crashed = record.exit is not None and record.exit.failed
    if policy.on_failure != "restore" or not (interrupted or crashed):
        return ()
    return tuple(each for each in own if _may_follow(each, record))


def _may_follow(found: Checkpoint, record: Record) -> bool:
    """Whether a run that began as the record says may go on from there."""
    if not record.restored:
        return record.phase != "launching"
    short = record.backoff > 1 and record.phase != "launching"  # it has run for a short time alone
    if _is_of(found, record):
        return not short
    if found.id == record.restored:
        return record.tries < TRIES and not short
    return found.id < record.restored


def _is_of(found: Checkpoint, record: Record) -> bool:
    """Whether it was made of the run that has just ended."""
    origin = found.origin
    same_boot = origin is not None and origin.boot_id == record.boot_id
    return bool(origin and same_boot and record.launched_at and origin.boot_ms >= record.launched_at)


def _is_own(found: Checkpoint) -> bool:
    origin = found.origin
    return bool(origin and not found.damage and origin.how != "imported" and not origin.foreign)


def _of(own: Iterable[Checkpoint], lineage: str) -> tuple[Checkpoint, ...]:
    return tuple(each for each in own if each.origin and each.origin.lineage == lineage)
