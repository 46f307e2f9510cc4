"""Side effects on network namespaces, links, addresses and routes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from controller.errors import NotReadBack
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.launch import Init
from controller.model.links import Device, LinkChange, SetLink
from controller.steps._base import Effect, Stage, Step, Wait


@dataclass(frozen=True, slots=True)
class MakeNamespace(Step):
    """Make a network namespace that outlives the container's processes."""

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.CREATE

    low_ports: bool

    @property
    def text(self) -> str:
        return "make a network namespace"

    def apply(self, host: Host) -> Wait | None:
        host.namespaces.make(self.container, low_ports=self.low_ports)
        return None


@dataclass(frozen=True, slots=True)
class KeepNamespace(Step):
    """Keep the network namespace that the container is in, instead of the one that is kept, if any."""

    stage: ClassVar[Stage] = Stage.PLACE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init
    live: str

    @property
    def text(self) -> str:
        return f"keep the network namespace of pid {self.init.pid}: {self.live}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("namespaces.net", self.live, "kept")

    def apply(self, host: Host) -> Wait | None:
        host.namespaces.remove(self.container)
        host.namespaces.keep(self.container, self.init)
        return None


@dataclass(frozen=True, slots=True)
class DropNamespace(Step):
    """Let go of the container's network namespace, and with it of everything in it."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove the network namespace"

    def apply(self, host: Host) -> Wait | None:
        host.namespaces.remove(self.container)
        host.devices.forget(self.container)
        return None


@dataclass(frozen=True, slots=True)
class RaiseLoopback(Step):
    """Set the loopback link of the container's own network namespace up."""

    stage: ClassVar[Stage] = Stage.INSIDE
    effect: ClassVar[Effect] = Effect.LIVE

    init: Init

    @property
    def text(self) -> str:
        return "set loopback up"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return ("namespaces.loopback", "down", "up")

    def apply(self, host: Host) -> Wait | None:
        host.inside.raise_loopback(self.init)
        return None


Requests = tuple[tuple[str, LinkChange], ...]
"""What is asked of the kernel, in order: (the container in whose namespace, or "" for the host's; the change)."""


def interface_of(key: str) -> str:
    """Pure. The interface that a key is about, as `networks.NAME`; empty for the keys of a network itself."""
    parts = key.split(".")
    return ".".join(parts[:2]) if parts[0] == "networks" else ""


@dataclass(frozen=True, slots=True)
class NetworkStep(Step):
    """One difference in the network: `live` and `wanted` say it in words."""

    stage: ClassVar[Stage] = Stage.LINK
    effect: ClassVar[Effect] = Effect.LIVE
    verb: ClassVar[str] = "set"

    key: str
    live: str
    wanted: str

    @property
    def scope(self) -> str:
        return interface_of(self.key)

    @property
    def text(self) -> str:
        return f"{self.verb} {self.key}: {self.live} → {self.wanted}"

    @property
    def change(self) -> tuple[str, str, str] | None:
        return (self.key, self.live, self.wanted)

    @abstractmethod
    def apply(self, host: Host) -> Wait | None: ...


@dataclass(frozen=True, slots=True)
class LinkStep(NetworkStep):
    """What rtnetlink does: the `requests` make live and wanted equal."""

    requests: Requests

    def apply(self, host: Host) -> Wait | None:
        for where, change in self.requests:
            host.links.change(where, (change,))
        return None


class MakeInterface(LinkStep):
    """Make an interface of a container, both ends of it where it has two."""

    verb: ClassVar[str] = "make interface"


@dataclass(frozen=True, slots=True)
class MoveInterface(LinkStep):
    """Move a device of the host into a container. What it was like is written down before."""

    verb: ClassVar[str] = "move interface"

    mark: str
    device: Device

    def apply(self, host: Host) -> Wait | None:
        host.devices.lend(self.container, self.mark, self.device)
        return LinkStep.apply(self, host)


@dataclass(frozen=True, slots=True)
class ReturnInterface(LinkStep):
    """Give a device back to the host, as it was."""

    verb: ClassVar[str] = "give back interface"

    mark: str

    def apply(self, host: Host) -> Wait | None:
        LinkStep.apply(self, host)
        host.devices.take_back(self.container, self.mark)
        return None


class SetInterface(LinkStep):
    """Change what differs of an interface of a container: name, MAC, MTU, bridge, up."""

    verb: ClassVar[str] = "set interface"


class RemoveInterface(LinkStep):
    """Take an interface away that is no longer wanted, or is not what it should be."""

    verb: ClassVar[str] = "remove interface"


class AddAddress(LinkStep):
    verb: ClassVar[str] = "add address"


class RemoveAddress(LinkStep):
    verb: ClassVar[str] = "remove address"


class AddRoute(LinkStep):
    verb: ClassVar[str] = "add route"


class RemoveRoute(LinkStep):
    verb: ClassVar[str] = "remove route"


@dataclass(frozen=True, slots=True)
class MakeBridge(LinkStep):
    """Make it; set it up when it is known that nobody need be asked for its IPv6 address: that takes seconds."""

    effect: ClassVar[Effect] = Effect.CREATE
    verb: ClassVar[str] = "make"

    def apply(self, host: Host) -> Wait | None:
        LinkStep.apply(self, host)
        detection = f"/proc/sys/net/ipv6/conf/{self.wanted}/accept_dad"
        if host.namespaces.setting("", detection) is not None:
            host.namespaces.set_setting("", detection, "0")
        host.links.change("", (SetLink(self.wanted, up=True),))
        return None


class SetBridge(LinkStep):
    verb: ClassVar[str] = "set"


class RemoveBridge(LinkStep):
    stage: ClassVar[Stage] = Stage.UNPLACE
    effect: ClassVar[Effect] = Effect.DELETE
    verb: ClassVar[str] = "remove"


@dataclass(frozen=True, slots=True)
class SetNetworkSetting(NetworkStep):
    """Write a file below /proc/sys/net in a container's namespace, or in the host's for "", and read it back."""

    where: str
    path: str

    def apply(self, host: Host) -> Wait | None:
        host.namespaces.set_setting(self.where, self.path, self.wanted)
        live = host.namespaces.setting(self.where, self.path)
        if live is None or live.split() != self.wanted.split():
            raise NotReadBack(f"{self.path}: wrote {self.wanted!r}, reads back {live!r}")
        return None
