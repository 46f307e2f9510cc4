"""The controller with all that it works with: watches, pulls, probes, and who notices want."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from controller.app.parsing import parse
from controller.app.telling import teller
from controller.app.wiring import App
from controller.host.network_watch import NetworkWatch
from controller.host.ports import EventLog, SourcePort
from controller.host.triggers import TriggerFiles
from controller.host.uevents import DeviceWatch
from controller.host.watch import KernelWatch
from controller.loop.acting import Acting
from controller.loop.controller import Controller
from controller.loop.door import Door
from controller.loop.ladder import Ladder
from controller.loop.notices import NobodyNotices, Notices, Noticing
from controller.loop.probes import NobodyProbes, Probes
from controller.loop.pulls import Pulls
from controller.loop.queue import WorkQueue
from controller.loop.warden import Warden
from controller.model.event import Event
from controller.model.launch import Init
from controller.reconcile.reconciler import Reconciler


@contextmanager
def controller_of(
    app: App, source: SourcePort, *, notices: bool
) -> Iterator[tuple[Controller, EventLog, Acting]]:
    """`notices`: with somebody who notices when a container is in want, and who asks whether it is well."""
    told = teller(app)
    app.audit.told = lambda said: told.event(
        Event(app.host.clock.wall_ms(), "", "AuditLost", said, level="warning")
    )
    triggers = TriggerFiles(app.homes, lambda name, watch: noticing.wake(name, watch))  # noqa: PLW0108
    noticing: Noticing = Notices(app.host, told, triggers, app.host.commands) if notices else NobodyNotices()
    work_queue = WorkQueue()
    acting = Acting(work_queue.add)
    probing = Probes(app.host, told, _self(app), work_queue.add) if notices else NobodyProbes()
    watch = KernelWatch(
        app.homes,
        app.inits,
        work_queue.add,
        lambda: controller.resync(),  # noqa: PLW0108  # it is made below
        lambda said: told.event(Event(app.host.clock.wall_ms(), "", "Blind", said, level="warning")),
        NetworkWatch(app.namespaces, app.firewall),
        DeviceWatch(),
        triggers,
    )
    pulls = Pulls(
        app.host,
        app.failpoint(),
        told,
        app.pins,
        lambda: controller.retake(),  # noqa: PLW0108
        work_queue.add,
        once=not notices,
    )
    controller = Controller(
        app.host,
        Reconciler(app.host, app.places.group, app.failpoint()),
        app.named(),
        source,
        app.store,
        app.leases,
        Door(app.host, app.grants),
        Warden(app.host, app.policy, told),
        Ladder(app.host, app.failpoint(), told, acting, app.places.group_of, probing.paused),
        pulls,
        app.conditions,
        told,
        watch,
        noticing,
        probing,
        parse,
        work_queue,
        allow_removals=app.settings.allow_removals,
        atomic=app.settings.atomic,
        node=app.settings.node,
    )
    try:
        yield controller, told, acting
    finally:
        pulls.close()
        probing.close()
        noticing.close()
        watch.close()
        app.keeper.close()


def _self(app: App) -> Init:
    stat = app.host.processes.stat(os.getpid())
    return Init(os.getpid(), stat.start_time if stat else 0)
