"""devices: what the container may open, which is always masu's to say, and the device nodes in it.

Of a container without the section, the rules are the default of the OCI runtimes: that is a part of its isolation.
Sources: Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst, "Device controller".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.device import (
    DEFAULT,
    RIGHTS,
    Claim,
    Match,
    Node,
    NodeSeen,
    Rules,
    absent_in,
    nodes_for,
    rules_for,
)
from controller.model.facts import Facts
from controller.model.names import plain_path
from controller.model.status import HOST_LACKS, Condition, Drift
from controller.steps._base import Effect, Step
from controller.steps.devices import PutNode, SetDeviceRules, TakeNode, seek

DEV = "/dev/"
Claims = tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """`differs`: which other rules are in force, in words; empty for none, None without a group. `lacks`: why this
    host knows no rules. `nodes`: place → what is there; None while there is no process.
    """

    rules: Rules = DEFAULT
    differs: str | None = ""
    lacks: str = ""
    wanted: tuple[Node, ...] = ()
    missing: Claims = ()
    nodes: Mapping[str, NodeSeen] | None = None


class Devices:
    name = "devices"
    section = "devices"
    keys: Mapping[str, Effect] = {"devices": Effect.LIVE, "devices.rules": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Claims:
        """Pure. Nothing written is no claim, and owned all the same."""
        del facts
        return tuple(_claim(each) for each in section or ())

    def birth(self, desired: Claims) -> Birth:
        """Pure. What there is for a claim is known at the birth, and changes afterwards: so no digest has it."""
        return Birth(Effect.LIVE, root={"devices": desired})

    def observe(self, subject: Subject, host: Host, desired: Claims | None) -> Seen:
        """Read-only."""
        if desired is None:
            return Seen()
        found = seek(host, desired)
        rules, wanted = rules_for(found), nodes_for(found)
        nodes = _nodes(subject, host, wanted)
        differs, lacks = _rules(subject, host, rules)
        return Seen(rules, differs, lacks, wanted, absent_in(found), nodes)

    def diff(self, subject: Subject, desired: Claims, observed: Seen) -> list[Step]:
        """Pure. A container that is asked to stop keeps what it has."""
        if subject.record and subject.record.phase == "stopping":
            return []
        nodes = list(_node_steps(subject, observed))
        if observed.differs == "" or observed.lacks:
            return nodes
        live = "absent" if observed.differs is None else observed.differs
        return [SetDeviceRules(subject.name, subject.group, observed.rules, live, bool(nodes)), *nodes]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Rules go with the cgroup, nodes with the container's mount namespace."""
        del subject, observed
        return []

    def verify(self, desired: Claims, observed: Seen) -> list[Drift]:
        """Pure. What a running container misses, and where something of its own is in the way."""
        del desired
        if observed.nodes is None:
            return []
        gone = [
            Drift(self.name, f"devices.{each}", each.access, "not there", "NoDevice")
            for each in observed.missing
        ]
        return [*gone, *_obstacles(observed)]

    def remarks(self, desired: Claims, observed: Seen) -> list[Condition]:
        """Pure."""
        del desired
        lacks = observed.lacks
        return [Condition(HOST_LACKS, status=True, reason="NoDeviceRules", message=lacks)] if lacks else []


def _claim(written: Mapping[str, Any]) -> Claim:
    match = Match.of(written["match"]) if "match" in written else None
    path = "" if match else plain_path(str(written["path"]))
    user, _, group = str(written.get("owner", "0:0")).partition(":")
    access = str(written.get("access", "rw"))
    return Claim(
        path=path,
        match=match,
        access="".join(each for each in RIGHTS if each in access),
        place=str(written.get("as", _own_name(path))).strip("/"),
        mode=int(str(written.get("mode", "0660")), 8),
        owner=(int(user), int(group or user)),
        optional=bool(written.get("optional", False)),
    )


def _own_name(path: str) -> str:
    """Below /dev as on the host; of what is elsewhere there, the last word."""
    return path.removeprefix(DEV) if path.startswith(DEV) else path.rpartition("/")[2]


def _nodes(subject: Subject, host: Host, wanted: tuple[Node, ...]) -> Mapping[str, NodeSeen] | None:
    if not subject.pid:
        return None
    return host.nodes.look(subject.name, subject.pid, tuple(each.place for each in wanted))


def _rules(subject: Subject, host: Host, rules: Rules) -> tuple[str | None, str]:
    try:
        return host.device_rules.state(subject.group, rules), ""
    except HostLacks as lack:
        return None, str(lack)


def _node_steps(subject: Subject, observed: Seen) -> Iterator[Step]:
    if observed.nodes is None:
        return
    wanted = {each.place: each for each in observed.wanted}
    for place, node in wanted.items():
        seen = observed.nodes[place]
        if not seen.obstacle and not (seen.ours and seen.node == node):
            yield PutNode(subject.name, subject.init, node, str(seen))
    for place, seen in observed.nodes.items():
        if seen.ours and place not in wanted:
            yield TakeNode(subject.name, subject.init, place, str(seen))


def _obstacles(observed: Seen) -> Iterator[Drift]:
    for node in observed.wanted:
        seen = (observed.nodes or {})[node.place]
        if seen.obstacle:
            yield Drift("devices", f"devices./dev/{node.place}", str(node), seen.obstacle, "PlaceTaken")
