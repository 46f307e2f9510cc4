"""Who was let in, and who waits: what admission remembers. What is decided is in `reconcile.admission`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from controller.host.ports import GrantStore, Host
from controller.model.grant import Grant
from controller.model.resource import CONTAINER, Resource
from controller.reconcile.admission import House, Verdict, admit, asked_by
from controller.reconcile.capacity import in_force
from controller.reconcile.desired import Wish
from controller.reconcile.reconciler import Result
from controller.steps._base import Wait
from controller.steps.runtime import DOES_NOT_FIT

ANEW_MS = 1000


class Door:
    """What changes it (`decide`, `settle`, `forget`, `save`) is called by one thread at a time; the rest by any.

    What is given is remembered in a file, so that another process knows who was first. What was given back is free
    only when a look has seen it to be: a container that was stopped, a limit that is lower in the kernel, too.
    """

    def __init__(self, host: Host, store: GrantStore) -> None:
        self._host, self._store = host, store
        self._saved = list(store.load().items())
        self._verdict = Verdict(grants=dict(self._saved))
        self._resting: dict[str, str] = {}
        """Container → digest of the wish of which nothing is left to be run."""

    def decide(
        self, resources: Mapping[str, Resource], wanted: Mapping[str, Wish], left: Collection[str]
    ) -> tuple[dict[str, Wish], set[str]]:
        """→ the wishes as they may be granted, and of whom something else is to be said than before.

        `left`: keys of everything of which anything is on the host.
        """
        before = {
            name: each for name, each in self._verdict.grants.items() if name in resources or name in left
        }
        asked = asked_by(resources, self._rest(resources, wanted), self._verdict.asked, self._host.facts)
        running = {name for name in asked if name not in before and name in left and self._runs(name)}
        verdict = admit(asked, before, running, House.of(resources, self._host.facts))
        stirred = {name for name in asked if _differs(name, verdict, self._verdict)}
        self._verdict = verdict
        granted = {name: in_force(wanted[name], verdict.grants[name]) for name in verdict.kept}
        return {**wanted, **granted}, stirred

    def save(self) -> None:
        now = list(self._verdict.grants.items())
        if now != self._saved:
            self._store.save(self._verdict.grants)
            self._saved = now

    @property
    def waiting(self) -> Collection[str]:
        """For whom there is no room."""
        return self._verdict.waiting

    def held(self, name: str) -> Wait | None:
        """Nobody is born without having been let in."""
        verdict = self._verdict
        if name in verdict.grants:
            return None
        if name in verdict.waiting:
            return Wait(DOES_NOT_FIT, verdict.waiting[name], 0)
        until = self._host.clock.now_ms() + ANEW_MS
        return Wait("WaitsForRoom", "what it needs was given back, and is asked for again", until)

    def judge(self, result: Result) -> Result:
        """Pure. With what is to be said of its limits."""
        verdict = self._verdict
        said = verdict.remarks(result.container)
        if not said:
            return result
        converged = result.converged and result.container not in verdict.kept
        return replace(result, converged=converged, conditions=(*result.conditions, *said))

    def differs(self, name: str, digest: str, result: Result) -> bool:
        """Whether a look has shown it to hold, or to want, something else than was thought: then `settle` is due.

        `digest`: of the wish that was looked at.
        """
        grant, due = self._verdict.grants.get(name), self._verdict.due.get(name)
        if result.rests:
            return grant is not None or self._resting.get(name) != digest
        done = not (result.last.steps or result.error)
        return name in self._resting or bool(done and grant and due is not None and grant.amounts != due)

    def settle(self, name: str, digest: str, result: Result) -> bool:
        """→ whether it has to be decided again."""
        if result.rests:
            self._resting[name] = digest
            self._give(name, None)
        elif name in self._resting:
            del self._resting[name]
            return True
        elif name in self._verdict.due:
            held = self._verdict.grants[name]
            self._give(name, replace(held, amounts=self._verdict.due[name]))
        return self._verdict.contended

    def forget(self, name: str) -> bool:
        """It is gone. → whether it has to be decided again."""
        self._resting.pop(name, None)
        self._give(name, None)
        return self._verdict.contended

    def _give(self, name: str, grant: Grant | None) -> None:
        grants = dict(self._verdict.grants)
        if grant:
            grants[name] = grant
        else:
            grants.pop(name, None)
        self._verdict = replace(self._verdict, grants=grants)

    def _rest(self, resources: Mapping[str, Resource], wanted: Mapping[str, Wish]) -> set[str]:
        self._resting = {
            name: digest
            for name, digest in self._resting.items()
            if name in wanted and wanted[name].digest == digest
        }
        stopped = {
            each.name for each in resources.values() if each.kind == CONTAINER and each.state == "stopped"
        }
        return stopped.union(self._resting)

    def _runs(self, name: str) -> bool:
        """Read-only. As far as anybody has written down."""
        record = self._host.records.read(name)
        return record is not None and record.boot_id == self._host.facts.boot_id and record.exit is None


def _differs(name: str, one: Verdict, other: Verdict) -> bool:
    return one.said(name) != other.said(name) or (name in one.grants) != (name in other.grants)
