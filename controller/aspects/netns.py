"""netns: the container's network namespace belongs to masu, so that it outlives restarts with all that is in it.

Sources: network_namespaces(7), ip-netns(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.network import DropNamespace, KeepNamespace, MakeNamespace


@dataclass(frozen=True, slots=True)
class Wanted:
    """`low_ports`: root inside has no rights over a namespace that its user namespace does not own."""

    kept: bool
    low_ports: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Inodes; 0: none. `trace`: something is there under the name, if only its file."""

    kept: int
    container: int
    trace: bool


class Netns:
    name = "netns"
    section = "namespaces"
    keys: Mapping[str, Effect] = {}

    def parse(self, section: Any, facts: Facts) -> Wanted:
        """Pure."""
        del facts
        written = section or {}
        return Wanted(written.get("net", "private") == "private", written.get("user", "host") != "host")

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure. The path of the namespace is known to the host alone, which puts it into the bundle config."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only."""
        kept = host.namespaces.inode(subject.name)
        trace = bool(kept) or (desired is None and subject.name in host.namespaces.names())
        own = host.processes.namespace(subject.pid, "net") if subject.pid else 0
        return Seen(kept, own, trace)

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure. That of a container which runs counts, whatever else is kept under its name."""
        if not desired.kept:
            return [DropNamespace(subject.name)] if observed.kept and not subject.pid else []
        if observed.container and observed.container != observed.kept:
            live = "another one is kept" if observed.kept else "nobody keeps it"
            return [KeepNamespace(subject.name, subject.init, live)]
        return [] if observed.kept else [MakeNamespace(subject.name, desired.low_ports)]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Not before the last process has ended."""
        return [DropNamespace(subject.name)] if observed.trace and not subject.pid else []
