"""`masu status` and `preflight`: what is desired and what is there, with or without a daemon. Read-only."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controller.app.wiring import App
from controller.app.wishes import node_of, put_by, wishes_of
from controller.errors import StepFailed
from controller.host.alone import holder
from controller.host.halves import in_halves
from controller.model.desired import DesiredSet
from controller.model.node import NodeStatus
from controller.model.resource import GROUP, NETWORK, VOLUME
from controller.model.status import ContainerStatus, LastCheckpoint
from controller.reconcile.desired import Wish, desire
from controller.reconcile.plan import existing
from controller.reconcile.preflight import Verdict, verdict
from controller.reconcile.status import (
    group_status,
    last_checkpoints,
    network_status,
    status_of,
    volume_status,
)
from controller.report.preview import Overview
from controller.steps.checkpointing import DUMPING
from controller.steps.runtime import DOES_NOT_FIT


def status(app: App, name: str = "") -> Overview:
    """Read-only. What is desired, and what is observed now, with or without a daemon.

    `name`: only the container, the network, the group and the volume of that name.
    """
    desired = app.store.load()
    left = existing(app.places.group, app.host)
    wishes = wishes_of(app, desired, left)
    names = {*desired.containers, *left}
    chosen = sorted(names if not name else names & {name})
    networks = [each for each in desired.of_kind(NETWORK).values() if name in {"", each.name}]
    last, daemon = last_checkpoints(app.host) if chosen else {}, holder(app.places.lock)

    def look(names: Sequence[str]) -> list[ContainerStatus]:
        app.namespaces.open_sockets(names)
        return [_status_of(app, each, wishes.get(each), last.get(each), kept=bool(daemon)) for each in names]

    containers = tuple(in_halves(look, chosen))
    volumes = {each for each in desired.of_kind(VOLUME) if name in {"", each}} | put_by(app, name)
    return Overview(
        desired,
        containers,
        tuple(network_status(each, wishes, app.host, app.conditions) for each in networks),
        tuple(
            group_status(each, wishes, desired.resources, app.places.group, app.host, app.conditions)
            for each in desired.of_kind(GROUP).values()
            if name in {"", each.name}
        ),
        tuple(
            volume_status(each, wishes, app.host, app.places.spaces, app.conditions)
            for each in sorted(volumes)
        ),
        None if name else _promised(app, desired, containers),
        daemon,
    )


def _promised(app: App, desired: DesiredSet, containers: Collection[ContainerStatus]) -> NodeStatus:
    """Read-only. What those who are there were given."""
    names = {each.name for each in containers}
    given = {name: each for name, each in app.grants.load().items() if name in names}
    waiting = [each.name for each in containers for one in each.conditions if one.reason == DOES_NOT_FIT]
    return node_of(app, desired, given, waiting)


def _status_of(
    app: App, name: str, wish: Wish | None, last: LastCheckpoint | None, *, kept: bool
) -> ContainerStatus:
    dumping = bool(kept and app.host.scratches.noted(name, DUMPING))
    group = app.places.group_of(name)
    return status_of(name, wish, group, app.host, app.conditions, last, dumping=dumping, kept=kept)


def preflight(app: App, name: str) -> dict[str, Verdict]:
    """Read-only. By container: of one, or of all for "". Raises StepFailed."""
    desired = app.store.load()
    wishes = wishes_of(app, desired, existing(app.places.group, app.host))
    chosen = [each for each in sorted(desired.containers) if name in {"", each} and each in wishes]
    if name and not chosen:
        raise StepFailed(f"there is no container {name}")
    wanted = [desire(wishes[each], app.host.facts) for each in chosen]
    return {each.name: verdict(app.host, each, app.places.group_of(each.name)) for each in wanted}
