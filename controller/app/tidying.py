"""What was left half done, and images that nobody has any more."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from controller.app.telling import Tellers
from controller.app.wiring import App
from controller.errors import MasuError
from controller.host.ports import EventLog
from controller.loop.pulls import remove as remove_images
from controller.model.event import Event
from controller.reconcile.checkpointing import mend
from controller.reconcile.images import unused


def mend_what_is_left(app: App, told: EventLog) -> None:
    """What a masu that was killed in the middle of a checkpoint, or of a pull, has left."""
    with suppress(MasuError):
        app.host.images.sweep()
    for name, said in mend(app.host, app.places.group_of, app.failpoint()):
        message = f"a checkpoint was interrupted: {said}"
        told.event(Event(app.host.clock.wall_ms(), name, "Mended", message))


def tidy_images(app: App, told: EventLog) -> None:
    """Those that nobody has any more go, where that can be told."""
    with suppress(MasuError):
        remove_images(unused(app.pins.load(), app.host), app.host, app.failpoint(), told)


def forget_images(app: App, gone: Collection[str], *, last: bool) -> None:
    """Of containers that were removed. `last`: nobody is left, and the file may be damaged."""
    told = Tellers(app.journal.append)
    try:
        before = {} if last else app.pins.load()
        app.pins.save({name: each for name, each in before.items() if name not in gone})
    except MasuError as error:
        at, message = app.host.clock.wall_ms(), f"those of what was removed: {error}"
        told.event(Event(at, "", "ImageKept", message, level="warning"))
    tidy_images(app, told)
