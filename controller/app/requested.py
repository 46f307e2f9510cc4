"""`masu checkpoint NAME` and `restore NAME`: done by the daemon where one runs, and else here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from controller.app.hearing import asked
from controller.app.telling import Tellers
from controller.app.tidying import mend_what_is_left
from controller.app.trust import why_barred
from controller.app.turns import alone
from controller.app.wiring import App
from controller.app.wishes import wanted_of
from controller.checkpoints.request import Request
from controller.errors import InstanceBusy
from controller.host import service
from controller.host.control import ask
from controller.loop.acting import Acting
from controller.loop.requests import Requests
from controller.reconcile.reconciler import Reconciler
from controller.report import narrate


def act(app: App, request: Request) -> Mapping[str, Any]:
    """Do what is asked, or have the daemon do it that holds this instance. Raises MasuError."""
    service.require_root()
    try:
        with alone(app), asked(app, request.verb, request.container):
            return _act(app, request)
    except InstanceBusy:
        answer = ask(app.places.control, request.to_json())
        if answer is None:
            raise
        return answer


def _act(app: App, request: Request) -> Mapping[str, Any]:
    """Without a daemon."""
    told = Tellers(app.journal.append)
    mend_what_is_left(app, told)
    reconciler = Reconciler(app.host, app.places.group, app.failpoint())

    def look(name: str) -> None:
        """What was done to the container is looked at once."""
        wanted = wanted_of(app, name)
        if wanted:
            result = reconciler.converge(wanted[0], lambda *_: None)
            for event in narrate.events(result, edited=True, at=app.host.clock.wall_ms()):
                told.event(event)

    acting = Acting(lambda _: None)

    def barred(name: str) -> str:
        return why_barred(app, name, app.store.load(), app.policy.read())

    requests = Requests(
        app.host, app.failpoint(), told, partial(wanted_of, app), lambda _: nullcontext, look, acting, barred
    )
    try:
        return requests.answer(request)
    finally:
        app.keeper.close()
