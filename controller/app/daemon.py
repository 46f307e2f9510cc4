"""`masu run`: converge and keep converged, answer on the control socket, and make checkpoints when they are due."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.app.controllers import controller_of
from controller.app.hearing import heard
from controller.app.tidying import mend_what_is_left
from controller.app.trust import check, source_for
from controller.app.turns import alone
from controller.app.wiring import App
from controller.checkpoints.request import Request
from controller.errors import GuardRefused, MasuError, StepFailed
from controller.host import service
from controller.host.control import SYNC, ControlSocket, me
from controller.host.ports import EventLog
from controller.loop.acting import Acting
from controller.loop.controller import Controller
from controller.loop.daemon import Daemon
from controller.loop.farewell import Farewell
from controller.loop.requests import Requests
from controller.loop.timetable import Timetable
from controller.model.event import Event
from controller.reconcile.audit import do
from controller.reconcile.desired import Desired
from controller.reconcile.plan import existing
from controller.settings import SECRETS
from controller.steps.checkpointing import NOTE, ClearScratch

if TYPE_CHECKING:
    from controller.app.trust import Source

READ_S = 10.0
"""How long whoever has fetched waits for it to be read."""
MARGIN_S = 10.0
"""What systemd is asked for beyond what the last checkpoints may take."""


def run(app: App, source: str) -> None:
    """The daemon: converge and keep converged until SIGTERM; containers go on running."""
    check(app, source)
    found = source_for(app, source)
    with alone(app, patient=True), controller_of(app, found, notices=True) as (controller, told, acting):
        mend_what_is_left(app, told)
        daemon = Daemon(
            controller, app.host, told, workers=app.settings.workers, resync_s=app.settings.resync_s
        )
        service.raise_open_files()
        files = found.watch(daemon.reload)

        def stop() -> None:
            daemon.stop()
            files.wait_no_more()

        def reread() -> None:
            """Also without anything new there: a tag may have moved, and a policy may have come."""
            controller.pulls.ask_anew()
            daemon.reload()
            files.hurry()

        service.on_signals(stop, reread)
        watches = _watches(app, daemon.reload, controller.resync)
        watches.callback(files.close)
        app.keeper.guard(lambda held: told.event(_keeper_replaced(app, held)))
        control = ExitStack()
        requests = _requests(app, controller, told, acting)
        timetable = Timetable(app.host, told, controller.containers, requests.at_its_time)

        def ready() -> None:
            answer = _answering(requests, lambda: _synced(found, daemon, controller))
            control.callback(ControlSocket(app.places.control, answer, partial(heard, app)).close)
            control.callback(timetable.close)
            timetable.start()
            heard(app, me(), {"verb": "run"}, None)
            _ready(app, source, told)

        def leave(urged: Callable[[float], bool]) -> None:
            service.notify("STOPPING=1")
            watches.close()  # with what is being fetched, or whoever has asked for it would be waited for
            control.close()
            _last_checkpoints(app, controller, told, requests, urged)

        try:
            daemon.run(
                ready,
                lambda: service.notify("WATCHDOG=1"),
                service.watchdog_interval_s(),
                leave,
            )
        finally:
            watches.close()
            control.close()
        told.event(_stopped(app))


@contextmanager
def _borrowed(controller: Controller, name: str) -> Iterator[None]:
    """Nobody else works on it, nor asks it anything."""
    with controller.probes.paused(name), controller.queue.borrow(name) as ours:
        if not ours:
            raise StepFailed("masu is being stopped")
        yield


def _synced(source: Source, daemon: Daemon, controller: Controller) -> Mapping[str, Any]:
    """Fetch now. → the revision that was found, if the source has such, and what of it is not in force.

    Raises SourceUnreadable.
    """
    try:
        commit = source.sync()
    except MasuError:
        daemon.reload()
        raise
    daemon.reload_now(READ_S)
    taken = controller.taken
    said = {"rejected": [str(each) for each in taken.rejected], "frozen": taken.frozen}
    return {**said, **({"commit": commit.id, "subject": commit.subject} if commit else {})}


def _answering(
    requests: Requests, sync: Callable[[], Mapping[str, Any]]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What the daemon answers on its control socket."""

    def answer(value: Mapping[str, Any]) -> Mapping[str, Any]:
        if value == SYNC:
            return sync()
        try:
            request = Request.from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise StepFailed(f"not understood: {error}") from error
        if request.ends:
            raise GuardRefused(
                "a daemon runs, which would start the container again: write state: stopped in its spec"
                " after a checkpoint, or stop the daemon first"
            )
        return requests.answer(request)

    return answer


def _last_checkpoints(
    app: App,
    controller: Controller,
    told: EventLog,
    requests: Requests,
    urged: Callable[[float], bool],
) -> None:
    """When the host itself stops, whoever has one ends with it: nothing that happens later is lost."""
    wait_s, ends = app.settings.last_wait_s, False

    def act(name: str, patience_s: float) -> None:
        with controller.probes.paused(name):
            requests.at_the_end(name, patience_s, ends=ends)

    farewell = Farewell(app.host, told, controller.containers, act, wait_s)
    if farewell.names:
        service.notify(f"EXTEND_TIMEOUT_USEC={round((wait_s + MARGIN_S) * 1_000_000)}")
        ends = service.host_stops()
        farewell.say(urged)
    for name in app.host.scratches.names():  # what is still being stored is given up: memory is dear
        if app.host.scratches.noted(name, NOTE):
            with suppress(MasuError):
                do(ClearScratch(name), app.host, app.failpoint())


def _requests(app: App, controller: Controller, told: EventLog, acting: Acting) -> Requests:
    """What the daemon does when it is asked, or when the time has come."""

    def wanted(name: str) -> tuple[Desired, str] | None:
        found = controller.wanted(name)
        return (found, app.places.group_of(name)) if found else None

    def hold(name: str) -> Callable[[], AbstractContextManager[object]]:
        return lambda: _borrowed(controller, name)

    barred = controller.warden.why
    return Requests(app.host, app.failpoint(), told, wanted, hold, controller.restored, acting, barred)


def _watches(app: App, nudge: Callable[[], None], resync: Callable[[], None]) -> ExitStack:
    """On the policy and the secrets of the host. What comes later is found by the resync."""
    from controller.sources.watch import Watch  # noqa: PLC0415

    watches = ExitStack()
    if app.policy.read():
        watches.callback(Watch(app.policy.path, nudge).close)
    if os.path.isdir(SECRETS):
        watches.callback(Watch(SECRETS, resync).close)
    return watches


def _keeper_replaced(app: App, held: int) -> Event:
    message = f"the keeper had ended; the one in its place looks after {held} container{'s' * (held != 1)}"
    return Event(app.host.clock.wall_ms(), "", "KeeperReplaced", message, level="warning")


def _stopped(app: App) -> Event:
    left = len(existing(app.places.group, app.host))
    message = f"{left} container{'s' * (left != 1)} left running; `masu down --all` removes them"
    return Event(app.host.clock.wall_ms(), "", "Stopped", message if left else "nothing is left")


def _ready(app: App, source: str, told: EventLog) -> None:
    service.notify(f"READY=1\nMAINPID={os.getpid()}")
    message = f"watching {source} as instance {app.settings.instance}"
    told.event(Event(app.host.clock.wall_ms(), "", "Ready", message))
