"""Who hears of events: the journal, and whoever watches this very process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from controller.app.wiring import App
from controller.host.ports import EventLog
from controller.model.event import Event


class Tellers:
    """Every event to several listeners. Telling never raises: whoever reads the log may go, and repairs go on."""

    def __init__(self, *listeners: Callable[[Event], object]) -> None:
        self._listeners = listeners

    def event(self, event: Event) -> None:
        for listener in self._listeners:
            with suppress(Exception):
                listener(event)


def teller(app: App) -> EventLog:
    """To the journal and to the console; and what others log has the same form from now on."""
    from controller import log  # noqa: PLC0415

    log.configure(
        verbose=app.settings.verbose, log_format=app.settings.log_format, colours=sys.stderr.isatty()
    )
    return Tellers(app.journal.append, log.Console().event)
