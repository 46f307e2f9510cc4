"""`masu checkpoints`, `checkpoint export`, `import` and `remove`: what is in the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from controller.app.hearing import asked
from controller.app.wiring import App
from controller.app.wishes import wanted_of
from controller.checkpoints.policy import Policy
from controller.errors import GuardRefused, LaunchFailed, MasuError, StepFailed
from controller.host import service
from controller.model.checkpoint import Checkpoint
from controller.model.event import Event
from controller.reconcile import inventory
from controller.reconcile.plan import existing
from controller.reconcile.preflight import PART, verdict


def listed(app: App, name: str, *, verify: bool) -> tuple[Checkpoint, ...]:
    """Read-only. Of one container, or of all for ""; `verify`: each is read to its end. Raises StepFailed."""
    found = inventory.listed(app.host, name, partial(_policy, app) if verify else None)
    if name and not (
        found or name in app.store.load().containers or name in existing(app.places.group, app.host)
    ):
        raise StepFailed(f"there is no container {name}")
    return found


def check_export(app: App, name: str, path: str) -> None:
    """Before the container is ended for it. Raises StepFailed where its archive could not be written."""
    service.require_root()
    service.set_umask()
    wanted = wanted_of(app, name)
    need = verdict(app.host, *wanted).needed if wanted else 0
    app.host.checkpoints.check_export(os.path.abspath(path), need)


def export(app: App, identity: str, path: str) -> tuple[str, ...]:
    """→ what could not go into the archive."""
    service.require_root()
    service.set_umask()
    return inventory.export(app.host, identity, os.path.abspath(path), partial(_policy, app))


def remove(app: App, identity: str) -> Checkpoint:
    """→ the one that is gone. A daemon need not know: it looks into the store whenever it wants one."""
    service.require_root()
    app.audit.revise(app.store.load().revision)
    with asked(app, "checkpoint remove"):
        found = inventory.remove(app.host, identity, partial(_policy, app), app.failpoint())
    at, said = app.host.clock.wall_ms(), f"{identity}, by hand"
    app.journal.append(Event(at, found.container, "CheckpointRemoved", said))
    return found


def take_in(app: App, path: str, name: str) -> Checkpoint:
    """`name`: of the container that it is to be of; "": as the archive says."""
    service.require_root()
    service.set_umask()
    policy = app.policy.read()
    why = policy.archives("import") if policy else ""
    if policy and why:
        raise GuardRefused(f"not allowed by rule checkpoints of {policy.file}: {why}")
    foreign = bool(policy and not policy.archives("foreign"))
    return inventory.take_in(app.host, os.path.abspath(path), name, partial(_policy, app), foreign=foreign)


@contextmanager
def imported(app: App, path: str, name: str) -> Iterator[str]:
    """The id of what is in an archive, to restore it. One that does not fit, or cannot be restored for now,
    leaves nothing; once the container was ended for it, it stays.
    """
    identity = take_in(app, path, name).id
    try:
        yield identity
    except LaunchFailed:
        raise
    except MasuError:
        inventory.give_up(app.host, identity)
        raise


def _policy(app: App, name: str) -> Policy:
    """Read-only. What the container's spec says of checkpoints; the defaults where there is no spec."""
    wanted = wanted_of(app, name) if name else None
    policy: Policy = wanted[0].parts[PART] if wanted else Policy()
    return policy
