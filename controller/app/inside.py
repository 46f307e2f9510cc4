"""`masu exec`: a command inside a running container."""

from __future__ import annotations

from controller.app.hearing import heard
from controller.app.wiring import App
from controller.errors import StepFailed
from controller.host import service
from controller.host.control import me
from controller.host.oci_exec import exec_inside
from controller.reconcile.plan import existing, subject_of
from controller.steps.freezer import frozen_by


def execute(app: App, name: str, command: tuple[str, ...]) -> int:
    """Run a command inside a running container; returns its exit code."""
    service.require_root()
    group = app.places.group_of(name)
    subject = subject_of(name, group, app.host)
    if not subject.pid:
        known = name in existing(app.places.group, app.host)
        raise StepFailed(f"container {name} is not running" if known else f"there is no container {name}")
    if frozen_by(app.host, group):
        raise StepFailed(f"container {name} is frozen: a command in it would be, too")
    app.audit.revise(app.store.load().revision)
    heard(app, me(), {"verb": "exec", "container": name}, None)
    return exec_inside(app.homes, app.places, name, group, subject.init, command)
