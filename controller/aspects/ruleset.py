"""ruleset: the instance's own table of the packet filter; nft(8). Others' tables are theirs.

So are ports that somebody else had first: they are not led away; the aspect `ports` reports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from controller.aspects import _taken_ports
from controller.aspects._base import Birth, Subject
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.firewall import Firewall
from controller.steps._base import Effect, Step
from controller.steps.firewall import ApplyRuleset, RemoveRuleset
from controller.steps.runtime import Await

LOOK_AGAIN_MS = 30_000


@dataclass(frozen=True, slots=True)
class Seen:
    """`differs`: in words, empty for nothing; None: there is no table. `lacks`: why this host cannot have one.
    `possible`: what is wanted, without what somebody else has.
    """

    differs: str | None
    lacks: str = ""
    possible: Firewall = field(default_factory=Firewall)


class Ruleset:
    name = "ruleset"
    section = "firewall"
    keys: Mapping[str, Effect] = {"ports": Effect.LIVE, "policy": Effect.LIVE, "nat": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Firewall | None:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        wanted: Firewall | None = section
        return wanted

    def birth(self, desired: Firewall) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Firewall | None) -> Seen:
        """Read-only."""
        if desired is None:
            return Seen("" if host.firewall.present() else None)
        possible = _possible(desired, host) if desired.publications else desired
        try:
            return Seen(host.firewall.state(possible), possible=possible)
        except HostLacks as lack:
            return Seen(None, str(lack))

    def diff(self, subject: Subject, desired: Firewall, observed: Seen) -> list[Step]:
        """Pure."""
        del desired
        if observed.lacks:
            until = subject.now_ms + LOOK_AGAIN_MS
            return [Await(subject.name, "NoPacketFilter", observed.lacks, until, first=True)]
        if observed.differs == "":
            return []
        return [ApplyRuleset(subject.name, observed.possible, observed.differs or "absent")]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure."""
        return [] if observed.differs is None else [RemoveRuleset(subject.name)]


def _possible(wanted: Firewall, host: Host) -> Firewall:
    taken = _taken_ports.taken(wanted.publications, host)
    return replace(wanted, publications=tuple(each for each in wanted.publications if each not in taken))
