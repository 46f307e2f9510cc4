"""Which checkpoints are tried before a container is started anew, and in which order. Pure.

Whoever crashes right after a restore may have been crashing already when that checkpoint was made: an older
one comes next. What it was before is in its record: nothing else has to be remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.checkpoints.policy import Policy
from controller.model.checkpoint import Checkpoint
from controller.model.record import Record

MOST = 3
"""As many are tried for one end: each may take as long as a restore."""


def after_reboot(
    found: Iterable[Checkpoint], policy: Policy, record: Record | None, boot_id: str
) -> tuple[str, ...]:
    """`record`: as it was left, by this boot or by another. The newest first; none if it has been started since."""
    if policy.on_reboot != "restore" or (record is not None and record.boot_id == boot_id):
        return ()
    own = _own(found)
    newest = own[0] if own else None
    if newest is None or newest.origin is None or newest.origin.boot_id == boot_id:
        return ()
    return tuple(each.id for each in own[:MOST])


def after_crash(found: Iterable[Checkpoint], policy: Policy, record: Record) -> tuple[str, ...]:
    """`record`: with the exit, and with the back-off after it."""
    if policy.on_failure != "restore" or record.exit is None or not record.exit.failed or record.intent:
        return ()
    own = _own(found)
    if record.backoff > 1:  # it has run for a short time alone
        own = [
            each for each in own if (each.id < record.restored if record.restored else _is_of(each, record))
        ]
    return tuple(each.id for each in own[:MOST])


def _own(found: Iterable[Checkpoint]) -> list[Checkpoint]:
    """What may be restored by itself, newest first."""
    whole = (each for each in found if each.origin and not each.damage)
    own = (
        each for each in whole if each.origin and each.origin.how != "imported" and not each.origin.foreign
    )
    return sorted(own, key=lambda each: each.id, reverse=True)


def _is_of(found: Checkpoint, record: Record) -> bool:
    """Whether it was made of the run that has just ended."""
    origin = found.origin
    return bool(origin and origin.boot_id == record.boot_id and origin.boot_ms >= record.launched_at)
