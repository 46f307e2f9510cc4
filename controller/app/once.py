"""`masu apply`: converge once."""

from __future__ import annotations

import threading
import time

from controller.app.controllers import controller_of
from controller.app.hearing import asked
from controller.app.tidying import mend_what_is_left, tidy_images
from controller.app.trust import check, source_for
from controller.app.turns import alone
from controller.app.wiring import App
from controller.loop.controller import Controller, work

POLL_S = 0.005


def apply(app: App, source: str, wait_s: float) -> tuple[bool, Controller]:
    """Converge once, for at most `wait_s` seconds. → whether everything converged."""
    check(app, source)
    found = source_for(app, source)
    with (
        alone(app),
        asked(app, "apply") as undone,
        controller_of(app, found, notices=False) as (controller, told, _),
    ):
        mend_what_is_left(app, told)
        threads = [
            threading.Thread(target=work, args=(controller, told, app.host), daemon=True)
            for _ in range(app.settings.workers)
        ]
        for thread in threads:
            thread.start()
        controller.reload()
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and not (controller.settled() or controller.stuck()):
            time.sleep(POLL_S)
        controller.queue.close()
        for thread in threads:
            thread.join(timeout=5)
        controller.pulls.close()
        tidy_images(app, told)
        if not controller.settled():
            undone.append("not everything has converged")
        return controller.settled(), controller
