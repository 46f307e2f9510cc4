"""Side effects on what a container may open, and on the device nodes in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from controller.errors import NotReadBack, StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.device import Claim, Found, HostNode, Node, NodeSeen, Rules, nodes_for, words
from controller.model.frame import IdMapping
from controller.model.launch import Init, NodeMade
from controller.model.process import id_outside
from controller.steps._base import Effect, Stage, Step, Wait


def seek(host: Host, claims: Iterable[Claim]) -> Found:
    """Read-only. What the host has now for each claim."""
    return tuple((each, _nodes(host, each)) for each in claims)


def _nodes(host: Host, claim: Claim) -> tuple[HostNode, ...]:
    if claim.match is not None:
        return host.hardware.matching(claim.match)
    found = host.hardware.at(claim.path)
    return (found,) if found else ()


def nodes_made(host: Host, claims: Iterable[Claim], ids: IdMapping | None) -> tuple[NodeMade, ...]:
    """The device nodes to be born with, by their places. Raises StepFailed for an owner who is not inside."""
    made = []
    for each in nodes_for(seek(host, claims)):
        user = id_outside(ids.uids, each.user) if ids else each.user
        group = id_outside(ids.gids, each.group) if ids else each.group
        if user is None or group is None:
            raise StepFailed(f"/dev/{each.place}: there is no user {each.user}:{each.group} in the container")
        made.append(NodeMade(each.place, each.kind, each.major, each.minor, each.mode, user, group))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class SetDeviceRules(Step):
    """Say which devices the container's processes may open; `live`: what is in force, in words.

    `follows`: the devices themselves have changed, so that nobody has meddled with the rules.
    """

    stage: ClassVar[Stage] = Stage.CHANGE
    effect: ClassVar[Effect] = Effect.LIVE

    group: str
    rules: Rules
    live: str
    follows: bool

    @property
    def text(self) -> str:
        return f"allow devices: {self.live} → {words(self.rules)}"

    @property
    def scope(self) -> str:
        return "devices.rules"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return None if self.follows else ("devices.rules", self.live, words(self.rules))

    def apply(self, host: Host) -> Wait | None:
        host.device_rules.put(self.group, self.rules)
        live = host.device_rules.state(self.group, self.rules)
        if live != "":
            raise NotReadBack(
                f"{self.group}: allowed {words(self.rules)}, reads back {live or 'no such group'}"
            )
        return None


@dataclass(frozen=True, slots=True)
class PutNode(Step):
    """Make a device node in the running container."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    node: Node
    live: str

    @property
    def text(self) -> str:
        return f"make node /dev/{self.node.place}: {self.live} → {self.node}"

    @property
    def scope(self) -> str:
        return f"devices./dev/{self.node.place}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (self.scope, self.live, str(self.node))

    def apply(self, host: Host) -> Wait | None:
        host.nodes.put(self.container, self.init, self.node)
        found = host.nodes.look(self.container, self.init.pid, (self.node.place,))
        if found is not None and found[self.node.place] != NodeSeen(ours=True, node=self.node):
            raise NotReadBack(
                f"/dev/{self.node.place}: made {self.node}, reads back {found[self.node.place]}"
            )
        return None


@dataclass(frozen=True, slots=True)
class TakeNode(Step):
    """Remove a device node of masu's from the running container."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    place: str
    live: str

    @property
    def text(self) -> str:
        return f"remove node /dev/{self.place}: {self.live}"

    @property
    def scope(self) -> str:
        return f"devices./dev/{self.place}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (self.scope, self.live, "absent")

    def apply(self, host: Host) -> Wait | None:
        host.nodes.take(self.container, self.init, self.place)
        left = host.nodes.look(self.container, self.init.pid, (self.place,))
        if left is not None and left[self.place].node:
            raise NotReadBack(f"/dev/{self.place}: removed, but there is {left[self.place]}")
        return None
