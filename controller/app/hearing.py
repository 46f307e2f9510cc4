"""What was asked of an instance is in its audit log, with who asked and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from controller.app.wiring import App
from controller.errors import MasuError, StepFailed
from controller.host.control import me
from controller.model.audit import Entry, Outcome, Peer


@contextmanager
def asked(app: App, verb: str, container: str = "") -> Iterator[list[str]]:
    """What somebody has asked this very process for is in the audit log, with how it ended.

    → for what was not done, in words. But to apply what is converged is no write at all.
    """
    request, before, undone = {"verb": verb, "container": container}, app.audit.lines, list[str]()
    try:
        yield undone
    except MasuError as error:
        heard(app, me(), request, error)
        raise
    if undone:
        heard(app, me(), request, StepFailed(", ".join(undone)))
    elif verb != "apply" or app.audit.lines != before:
        heard(app, me(), request, None)


def heard(app: App, peer: Peer, request: Mapping[str, Any], error: MasuError | None) -> None:
    """Of a request that was answered."""
    at, verb = app.host.clock.wall_ms(), str(request.get("verb", "unknown"))
    outcome: Outcome = "done" if error is None else "refused" if not error.retry else "failed"
    said = str(error or "")
    name = str(request.get("container", ""))
    app.audit.append((Entry(at, name, outcome, why=said, request=verb, peer=peer),))
