"""Status of one container, put together from what is recorded and what is observed now."""

from __future__ import annotations

from controller.host.ports import Conditions, Host
from controller.model.record import Record
from controller.model.resource import Resource
from controller.model.status import Condition, ContainerStatus
from controller.reconcile.desired import desire
from controller.reconcile.plan import Plan, plan, subject_of


def status_of(
    name: str, container: Resource | None, group: str, host: Host, conditions: Conditions
) -> ContainerStatus:
    """Read-only."""
    if container is None:
        return _undesired(name, group, host, conditions)
    wanted = desire(container, host.facts)
    found = plan(wanted, group, host)
    record = found.subject.record
    said = tuple(dict.fromkeys((*wanted.lacks, *conditions.read(name))))
    return ContainerStatus(
        name=name,
        state=_state(container.state, found, record),
        pid=found.subject.pid,
        converged=not (found.steps or found.broken or wanted.lacks),
        restarts=record.restarts if record else 0,
        exit_code=_exit_code(name, record, host),
        conditions=said,
        drift=(*found.drift, *found.broken),
    )


def _undesired(name: str, group: str, host: Host, conditions: Conditions) -> ContainerStatus:
    subject = subject_of(name, group, host)
    message = "no spec file defines it; it is being removed, or its source is frozen"
    orphan = Condition("Orphan", status=True, reason="NotDesired", message=message)
    record = subject.record
    state = "running" if subject.pid else "absent"
    restarts, code = (record.restarts if record else 0), _exit_code(name, record, host)
    return ContainerStatus(
        name, state, subject.pid, False, restarts, code, (orphan, *conditions.read(name)), ()
    )


def _state(wanted: str, found: Plan, record: Record | None) -> str:
    if found.subject.pid:
        if record and record.phase == "stopping":
            return "stopping"
        thawing = any(step.kind == "SetFreezer" for step in found.steps)
        return "frozen" if (wanted == "frozen") != thawing else "running"
    if record is None:
        return "absent"
    if any(step.kind == "Await" for step in found.steps):
        return "back-off"
    return "exited" if record.pid else "stopped"


def _exit_code(name: str, record: Record | None, host: Host) -> int | None:
    """Of the last run that ended; the keeper may know of one that no controller has lived to record."""
    if record is None:
        return None
    kept = host.runtime.exit_of(name)
    if kept and record.exit is None and kept.start_time == record.start_time:
        return kept.code
    ended = record.exit or record.last_exit
    return None if ended is None else ended.code
