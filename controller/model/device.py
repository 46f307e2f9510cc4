"""Device nodes as plain values: who may open which, what a spec asks for, what the host has, what is inside. Pure.

Sources: Documentation/admin-guide/cgroup-v1/devices.rst, Documentation/admin-guide/devices.txt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from controller.frozen import dataclass

ANY = -1
"""Instead of a major or minor number: every one."""
RIGHTS = "rwm"
"""To read, to write, and to make a node (mknod)."""
EVERYTHING = "everything is allowed"
"""What is in force where no rule is, in words."""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What is allowed of one device, or of a range: `kind` is c or b; `access` in the order of RIGHTS."""

    kind: str
    major: int
    minor: int
    access: str

    @property
    def about(self) -> tuple[str, int, int]:
        return self.kind, self.major, self.minor

    def __str__(self) -> str:
        """As the kernel writes it, and reads it."""
        major, minor = ("*" if each == ANY else each for each in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"


Rules = tuple[Rule, ...]
"""Sorted, and no two about the same; what no rule allows is refused."""

DEFAULT: Rules = (
    Rule("c", 1, 3, RIGHTS),  # null
    Rule("c", 1, 5, RIGHTS),  # zero
    Rule("c", 1, 7, RIGHTS),  # full
    Rule("c", 1, 8, RIGHTS),  # random
    Rule("c", 1, 9, RIGHTS),  # urandom
    Rule("c", 5, 0, RIGHTS),  # tty
    Rule("c", 5, 1, RIGHTS),  # console
    Rule("c", 5, 2, RIGHTS),  # ptmx
    Rule("c", 136, ANY, RIGHTS),  # pts/*
)
"""What every container may open: the nodes that OCI runtimes make. Other nodes it may not make, either."""


DEFAULT_LINES = frozenset(map(str, DEFAULT))


def lines_of(rules: Rules) -> frozenset[str]:
    """As devices.list has them; those of nearly every container cost nothing."""
    return DEFAULT_LINES if rules is DEFAULT else frozenset(map(str, rules))


def canonical(rules: Iterable[Rule]) -> Rules:
    """Two rules about the same are one with the rights of both: so does the kernel merge them on v1."""
    rights: dict[tuple[str, int, int], str] = {}
    for each in rules:
        rights[each.about] = rights.get(each.about, "") + each.access
    return tuple(sorted(Rule(*about, _in_order(access)) for about, access in rights.items()))


def parse_rules(text: str) -> Rules | None:
    """What devices.list says; None: everything is allowed."""
    rules = []
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return None
        major, _, minor = numbers.partition(":")
        rules.append(Rule(kind, _parsed(major), _parsed(minor), access))
    return canonical(rules)


def difference(live: Rules, wanted: Rules) -> tuple[Rules, Rules]:
    """(what has to be allowed, what has to be denied), right by right: the rest is never touched."""
    return _without(wanted, live), _without(live, wanted)


def words(rules: Rules) -> str:
    """For people: what is beyond the default, and what is missing of it."""
    if rules == DEFAULT:
        return "the default"
    more, less = difference(DEFAULT, rules)
    said = "".join((*(f" and {each}" for each in more), *(f" without {each}" for each in less)))
    return f"the default{said}"


def _without(some: Rules, others: Rules) -> Rules:
    taken = {each.about: each.access for each in others}
    left = (
        Rule(*each.about, "".join(right for right in each.access if right not in taken.get(each.about, "")))
        for each in some
    )
    return tuple(each for each in left if each.access)


def _in_order(access: str) -> str:
    return "".join(right for right in RIGHTS if right in access)


def _parsed(text: str) -> int:
    return ANY if text == "*" else int(text)


@dataclass(frozen=True, slots=True)
class Match:
    """What a device must be like; an empty word is not asked about. `name`: a glob of the kernel's name."""

    subsystem: str = ""
    vendor: str = ""
    product: str = ""
    serial: str = ""
    driver: str = ""
    name: str = ""

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Match:
        """Numbers of vendors and products as sysfs has them: small letters."""
        found = {key: str(value) for key, value in written.items()}
        return cls(
            **{key: each.lower() if key in {"vendor", "product"} else each for key, each in found.items()}
        )

    def __str__(self) -> str:
        asked = ((each.name, getattr(self, each.name)) for each in fields(self))
        return ", ".join(f"{key} {value}" for key, value in asked if value)


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry of the section: `path` of a node on the host, or `match`.

    `place`: below /dev of the container; with a match the directory of what is found, or empty. `owner`: user and
    group inside.
    """

    path: str
    match: Match | None
    access: str
    place: str
    mode: int
    owner: tuple[int, int]
    optional: bool

    def __str__(self) -> str:
        return self.path or f"a device with {self.match}"


@dataclass(frozen=True, slots=True, order=True)
class HostNode:
    """A device node of the host; `name` below its /dev."""

    name: str
    kind: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A device node inside, at `place` below /dev; user and group as the container counts them."""

    place: str
    kind: str
    major: int
    minor: int
    mode: int
    user: int
    group: int

    def __str__(self) -> str:
        return f"{self.kind} {self.major}:{self.minor} mode {self.mode:04o} of {self.user}:{self.group}"


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """What is at a place below /dev of a container: a `node`, masu's own or another, or nothing.

    `obstacle`: why masu puts none there, in words; else empty.
    """

    ours: bool
    node: Node | None
    obstacle: str = ""

    def __str__(self) -> str:
        if self.obstacle or self.node is None:
            return self.obstacle or "absent"
        return str(self.node) if self.ours else f"{self.node}, not made by masu"


Found = tuple[tuple[Claim, tuple[HostNode, ...]], ...]
"""Each claim with what the host has for it."""


def rules_for(found: Found) -> Rules:
    """The default, and what was found. Two claims to one device add up."""
    more = [Rule(each.kind, each.major, each.minor, claim.access) for claim, nodes in found for each in nodes]
    return canonical((*DEFAULT, *more)) if more else DEFAULT


def nodes_for(found: Found) -> tuple[Node, ...]:
    """What is to be inside; at one place the claim that is written first wins."""
    nodes: dict[str, Node] = {}
    for claim, there in found:
        for each in there:
            place = _place(claim, each)
            numbers = each.kind, each.major, each.minor
            nodes.setdefault(place, Node(place, *numbers, claim.mode, *claim.owner))
    return tuple(sorted(nodes.values()))


def absent_in(found: Found) -> tuple[Claim, ...]:
    """What has to be there, and is not."""
    return tuple(claim for claim, nodes in found if not nodes and not claim.optional)


def _place(claim: Claim, node: HostNode) -> str:
    if claim.match is None:
        return claim.place
    return f"{claim.place}/{node.name}" if claim.place else node.name
