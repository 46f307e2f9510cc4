"""What a document of the spec asks for, as written: sections of plain JSON values, and where they stand. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from controller.frozen import dataclass

State = Literal["running", "frozen", "stopped"]


def digest(value: Any) -> str:
    """Sixteen hex digits that change when and only when the JSON value changes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


CONTAINER, NETWORK, GROUP, VOLUME, NODE = "Container", "Network", "Group", "Volume", "Node"
KINDS = (CONTAINER, NETWORK, GROUP, VOLUME, NODE)
FIREWALL, INSTANCE = "Firewall", "Instance"
"""No documents: what the others come to for the packet filter, and for the cgroups above them."""


def key_of(kind: str, name: str) -> str:
    """One word for each resource of an instance: a container's name, or kind/name for the others."""
    return name if kind == CONTAINER else f"{kind.lower()}/{name}"


def kind_of(key: str) -> str:
    kind, slash, _ = key.partition("/")
    return kind.capitalize() if slash else CONTAINER


def name_of(key: str) -> str:
    return key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Resource:
    """One document; `spec` is the validated JSON under that key.

    `line` and `column` of its name count from 1. `marks`: path → those of what others may be at odds with, as far
    as it is known.
    """

    name: str
    file: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    line: int = 1
    column: int = 1
    kind: str = CONTAINER
    marks: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Path → in which other file that mark is."""
    placement: Mapping[str, Any] | None = None
    """On which hosts it counts; None: on all."""

    def place(self, path: str) -> tuple[int, int]:
        """Line and column of what stands at `path`, such as `spec.ports[0]`, or of what is nearest above it."""
        return self.where(path)[1:]

    def where(self, path: str) -> tuple[str, int, int]:
        """The same with its file."""
        while path:
            if path in self.marks:
                return self.files.get(path, self.file), *self.marks[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.file, self.line, self.column

    @property
    def key(self) -> str:
        return key_of(self.kind, self.name)

    @property
    def title(self) -> str:
        """As people say it: container "web"."""
        return f'{self.kind.lower()} "{self.name}"'

    def section(self, path: str) -> Any:
        """The part of the spec at a dotted path, or None: what is not written is not owned."""
        value: Any = self.spec
        for key in path.split("."):
            if not isinstance(value, (dict, Mapping)) or key not in value:  # the first of them is quick
                return None
            value = value[key]
        return value

    @property
    def state(self) -> State:
        state: State = self.spec.get("state", "running")
        return state

    @property
    def digest(self) -> str:
        return digest(self.spec)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "file": self.file,
            "labels": dict(self.labels),
            "spec": self.spec,
            "at": [self.line, self.column],
            **({"placement": self.placement} if self.placement is not None else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resource:
        line, column = value.get("at", (1, 1))
        kind = value.get("kind", CONTAINER)
        written = value["name"], value["file"], value["labels"], value["spec"], line, column, kind
        return cls(*written, {}, {}, value.get("placement"))
