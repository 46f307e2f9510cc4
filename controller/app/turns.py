"""One at a time changes an instance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from controller.app.wiring import App
from controller.errors import InstanceBusy
from controller.host import service
from controller.host.alone import InstanceLock
from controller.host.control import listens

WAIT_S = 0.1


@contextmanager
def alone(app: App, *, patient: bool = False) -> Iterator[None]:
    """`patient`: who does one thing only, such as a restore by hand, is waited for; another daemon is not."""
    service.require_root()
    service.set_umask()
    lock = _lock(app, patient=patient)
    app.audit.revise(app.store.load().revision)
    try:
        yield
    finally:
        app.audit.close()
        lock.release()


def _lock(app: App, *, patient: bool) -> InstanceLock:
    while True:
        try:
            return InstanceLock(app.places.lock, app.settings.instance)
        except InstanceBusy:
            if not patient or listens(app.places.control):
                raise
            time.sleep(WAIT_S)
