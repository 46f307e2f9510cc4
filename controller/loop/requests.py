"""What somebody asks for, one act on one container at a time: done, told in events, answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from controller.checkpoints.request import Request
from controller.errors import LaunchFailed, MasuError, StepFailed
from controller.host.ports import EventLog, Host
from controller.loop.acting import Acting
from controller.model.attempts import Attempts
from controller.model.checkpoint import How
from controller.model.event import Event
from controller.reconcile.apply import Failpoint
from controller.reconcile.checkpointing import Acts, Barred, Hold
from controller.reconcile.desired import Desired
from controller.report.checkpoints import checkpoint_json, stored

FAILED = {"checkpoint": "CheckpointFailed", "restore": "RestoreFailed"}


class Requests:
    """Thread-safe. `wanted`: what a container is to be; `hold`: nobody else works on it meanwhile;
    `after`: it is looked at, because something was done to it. `barred`: see `Barred`."""

    def __init__(
        self,
        host: Host,
        failpoint: Failpoint,
        log: EventLog,
        wanted: Callable[[str], tuple[Desired, str] | None],
        hold: Callable[[str], Hold],
        after: Callable[[str], object],
        acting: Acting,
        barred: Barred,
    ) -> None:
        self._host, self._failpoint, self._log = host, failpoint, log
        self._wanted, self._hold, self._after = wanted, hold, after
        self._acting, self._barred = acting, barred

    def answer(self, request: Request) -> Mapping[str, Any]:
        """Raises MasuError, which has been told as an event, too, unless there is nobody of that name."""
        with self._acting.act(request.container):
            found = self._wanted(request.container)
            if found is None:
                raise StepFailed(f"there is no container {request.container}")
            acts = Acts(self._host, self._failpoint, *found, self._hold(request.container), self._barred)
            try:
                done = self._done(acts, request)
            except LaunchFailed as error:
                self._fail(request, error)
                self._after(request.container)  # it was ended, and is to be started
                raise
            except MasuError as error:
                self._fail(request, error)
                raise
            if request.verb == "restore":
                self._after(request.container)
            return done

    def at_its_time(self, name: str) -> None:
        """A checkpoint that its schedule asks for. Raises MasuError, which the caller tells."""
        with self._acting.act(name):
            found = self._wanted(name)
            if found:
                acts = Acts(self._host, self._failpoint, *found, self._hold(name), self._barred)
                self._checkpoint(acts, Request("checkpoint", name), "schedule")

    def at_the_end(self, name: str, patience_s: float, *, ends: bool) -> None:
        """The last checkpoint before masu ends, when nobody else works on containers any more; `ends`: with it ends
        the container. Raises MasuError, which the caller tells."""
        with self._acting.act(name, patience_s):
            found = self._wanted(name)
            if found:
                acts = Acts(self._host, self._failpoint, *found, nullcontext, self._barred)
                self._checkpoint(acts, Request("checkpoint", name, ends=ends), "shutdown")

    def _done(self, acts: Acts, request: Request) -> Mapping[str, Any]:
        return (
            self._checkpoint(acts, request, "manual")
            if request.verb == "checkpoint"
            else self._restore(acts, request)
        )

    def _fail(self, request: Request, error: MasuError) -> None:
        self._tell(request.container, FAILED[request.verb], str(error), level="warning")

    def _checkpoint(self, acts: Acts, request: Request, how: How) -> Mapping[str, Any]:
        made = acts.checkpoint(how, ends=request.ends)
        found = made.checkpoint
        self._note(acts.name)
        amounts = stored(found.size, found.stored)
        ended = "; it was ended with it" if request.ends else ""
        ended += f"; {made.left}" if made.left else ""
        self._tell(acts.name, "Checkpointed", f"{found.id}: {amounts}; {made.cost}{ended}")
        return {**checkpoint_json(found), "cost": "; ".join(each for each in (made.cost, made.left) if each)}

    def _note(self, name: str) -> None:
        """That one was made, whoever asked for it."""
        before, host = self._host.attempts.read(name) or Attempts(), self._host
        host.attempts.write(name, replace(before, said="", made_ms=host.clock.wall_ms()))

    def _restore(self, acts: Acts, request: Request) -> Mapping[str, Any]:
        found = acts.restore(request.identity)
        self._tell(acts.name, "Restored", f"goes on from checkpoint {found.id}")
        return checkpoint_json(found)

    def _tell(self, name: str, kind: str, message: str, level: str = "info") -> None:
        self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level=level))
