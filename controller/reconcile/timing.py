"""When the checkpoints of a container are due, from its spec, its record and the store. Read-only."""

from __future__ import annotations

from contextlib import suppress

from controller.checkpoints.policy import Policy
from controller.checkpoints.schedule import Clocks, Due, Past, due
from controller.errors import MasuError
from controller.host.ports import Host
from controller.model.record import Record
from controller.model.status import READY
from controller.reconcile.desired import Desired
from controller.reconcile.preflight import PART, check_dump


def scheduled(desired: Desired) -> bool:
    """Pure."""
    policy: Policy | None = desired.parts.get(PART)
    return policy is not None and policy.schedule is not None and not policy.never


def runs(record: Record | None, host: Host) -> bool:
    """Whether it is what is asked for a checkpoint at all: not one that is just being started or stopped."""
    return record is not None and record.phase == "running" and record.boot_id == host.facts.boot_id


def next_due(policy: Policy, name: str, past: Past, host: Host) -> Due | None:
    """None: never again."""
    if policy.schedule is None:
        return None
    now = Clocks(host.clock.now_ms(), host.clock.wall_ms())
    return due(policy.schedule, name, past, now, host.clock.zone())


def last_started(name: str, host: Host) -> int:
    """When the schedule made the last one of this boot, in milliseconds since that; 0: it has made none."""
    moments = (
        each.origin.boot_ms
        for each in host.checkpoints.checkpoints(name)
        if each.origin and each.origin.how == "schedule" and each.origin.boot_id == host.facts.boot_id
    )
    return max(moments, default=0)


def foreseen(desired: Desired, group: str, record: Record | None, host: Host) -> tuple[int, str]:
    """→ (when the next one is due, in milliseconds since 1970, 0: never; whether it would be made, or why not).

    Whatever is found, everything else of a status is told.
    """
    if not scheduled(desired):
        return 0, ""
    try:
        check_dump(host, desired, group, guests=desired.health is None)  # a probe ends before any dump
        return _upcoming(desired, record, host), READY
    except MasuError as error:
        verdict = str(error)
    except Exception as error:  # noqa: BLE001  a defect in this look
        verdict = f"it cannot be told: {type(error).__name__}: {error}"
    with suppress(MasuError):
        return _upcoming(desired, record, host), verdict
    return 0, verdict


def _upcoming(desired: Desired, record: Record | None, host: Host) -> int:
    if record is None or not runs(record, host):
        return 0
    started = last_started(desired.name, host)
    moment = next_due(desired.parts[PART], desired.name, Past(record.launched_at, started, started), host)
    ahead = host.clock.wall_ms() - host.clock.now_ms()
    return max(moment.at_ms, host.clock.now_ms()) + ahead if moment else 0
