"""What of the desired set the policy of this host does not allow, which `spec.host_policy` decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.errors import MasuError
from controller.host.ports import EventLog, Host, PolicyPort
from controller.model.event import Event
from controller.model.host_policy import HostPolicy
from controller.model.resource import CONTAINER, Resource
from controller.reconcile.reconciler import Result, remarked
from controller.spec.host_policy import excesses, forbidden
from controller.spec.misfit import Misfit
from controller.steps._base import Wait
from controller.steps.runtime import NOT_ALLOWED


class Warden:
    """`refresh` and `judge` are called by one thread, `settle` by one at a time; the rest by any.

    The policy of a running masu is the last one that was good: what cannot be read any more permits nothing new.
    """

    def __init__(self, host: Host, source: PolicyPort, log: EventLog) -> None:
        self._host, self._source, self._log = host, source, log
        self._policy = source.read()
        self._resources: Mapping[str, Resource] = {}
        self._why: dict[str, str] = {}
        self._said = ""

    def refresh(self) -> None:
        """Read it again, if it has changed; what is wrong with it is told once."""
        before = self._policy
        try:
            self._policy, said = self._source.read(), ""
        except MasuError as error:
            said = str(error)
        if said and said != self._said:
            self._tell("PolicyRejected", f"{said}; the last good policy stays in force", "error")
        elif self._policy is not before and self._policy:
            self._tell("PolicyChanged", f"{self._policy.file} is in force")
        self._said = said

    def judge(self, resources: Mapping[str, Resource]) -> list[Misfit]:
        """What of these may not be asked for."""
        return forbidden(resources, self._policy, self._source)

    def settle(self, resources: Mapping[str, Resource]) -> set[str]:
        """`resources`: what is in force from now on. → of whom something else is to be said than before."""
        self._resources = resources
        before, self._why = self._why, {}
        if self._policy:
            containers = [each for each in resources.values() if each.kind == CONTAINER]
            found = {each.name: self._excesses(each, self._policy) for each in containers}
            self._why = {name: why for name, why in found.items() if why}
        return {
            name for name in {*before, *self._why} if before.get(name) != self._why.get(name)
        } & resources.keys()

    def held(self, name: str) -> Wait | None:
        """Nobody is born who is not allowed: asked again each time, since links may lead elsewhere by now."""
        why = self.why(name)
        return Wait(NOT_ALLOWED, why, 0) if why else None

    def why(self, name: str) -> str:
        """Why a container may not be born, in words; "": it may."""
        policy, wanted = self._policy, self._resources.get(name)
        return self._excesses(wanted, policy) if policy and wanted else ""

    def remark(self, result: Result) -> Result:
        """With a word that what runs would not be let in any more: it is left running."""
        why = self._why.get(result.container, "")
        return remarked(result, NOT_ALLOWED, why) if why else result

    def _excesses(self, wanted: Resource, policy: HostPolicy) -> str:
        return barred(excesses(wanted, self._resources, policy, self._source))

    def _tell(self, kind: str, message: str, level: str = "info") -> None:
        self._log.event(Event(self._host.clock.wall_ms(), "", kind, message, level=level))


def barred(found: Iterable[Misfit]) -> str:
    """Pure. In words; "" for none."""
    return "; ".join(f"{each.path} {each.why}" for each in found)
