"""Side effects on traffic control, and on the links through which a network's traffic is shared out."""

from __future__ import annotations

from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.queueing import Direction, Node, Redirect
from controller.steps._base import Stage, Wait
from controller.steps.network import LinkStep, NetworkStep

LOOK_AGAIN_MS = 500


class MakeFunnel(LinkStep):
    """Make the link through which a network's traffic in one direction goes."""

    verb: ClassVar[str] = "make"


class SetFunnel(LinkStep):
    verb: ClassVar[str] = "set"


class RemoveFunnel(LinkStep):
    """When nothing is led through it any more: what is led into a link that is gone is lost."""

    stage: ClassVar[Stage] = Stage.UNPLACE
    verb: ClassVar[str] = "remove"


@dataclass(frozen=True, slots=True)
class _QueueingStep(NetworkStep):
    """At the link of that name in the namespace of `where`, "" for the host's."""

    where: str
    link: str

    def put(self, host: Host, node: Node) -> Wait | None:
        found = host.links.link(self.where, self.link)
        if found is None:
            return Wait("NoLink", f"link {self.link} is gone", host.clock.now_ms() + LOOK_AGAIN_MS)
        host.queueing.put(self.where, found.index, node)
        seen = host.queueing.look(self.where, found.index)
        if seen is None or not seen.holds(node):
            raise NotReadBack(f"{self.key} of link {self.link}: asked for {node}, reads back {seen}")
        return None

    def take(self, host: Host, node: Node) -> None:
        found = host.links.link(self.where, self.link)
        if found is not None:
            host.queueing.take(self.where, found.index, node)


@dataclass(frozen=True, slots=True)
class PutQueueing(_QueueingStep):
    """Set how fast a link sends, and in which order."""

    verb: ClassVar[str] = "set"

    node: Node

    def apply(self, host: Host) -> Wait | None:
        return self.put(host, self.node)


@dataclass(frozen=True, slots=True)
class TakeQueueing(_QueueingStep):
    """Take away a limit that is no longer wanted."""

    verb: ClassVar[str] = "remove"

    node: Node

    def apply(self, host: Host) -> Wait | None:
        self.take(host, self.node)
        return None


@dataclass(frozen=True, slots=True)
class PutRedirect(_QueueingStep):
    """Lead what passes one hook of a link through the funnel of the name `wanted`."""

    verb: ClassVar[str] = "lead"

    hook: Direction

    def apply(self, host: Host) -> Wait | None:
        funnel = host.links.link("", self.wanted)
        if funnel is None or not funnel.up:
            message = f"the network's link {self.wanted} is not there yet"
            return Wait("WaitsForNetwork", message, host.clock.now_ms() + LOOK_AGAIN_MS)
        return self.put(host, Redirect(self.hook, funnel.index))


@dataclass(frozen=True, slots=True)
class TakeRedirect(_QueueingStep):
    """Lead it no longer through a funnel."""

    verb: ClassVar[str] = "no longer lead"

    hook: Direction

    def apply(self, host: Host) -> Wait | None:
        self.take(host, Redirect(self.hook, 0))
        return None
