"""A checkpoint as values: where it came from, what the store says of it, and what is to be stored. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, field, fields
from typing import Any, Literal

from controller.frozen import dataclass

PROGRESS = "progress"
"""What is noted beside the images: what is being done for a checkpoint or a restore, in words."""
UPPER = "upper"
"""The tree that is a container's writable layer."""
_VOLUME = "volume."
ENDED = "-"
"""In the place of a lineage: the last run was ended on purpose."""
SPEC = "spec.dump"
"""The extra that is the bundle config."""


def volume_tree(name: str) -> str:
    """The tree that is what is in a volume."""
    return f"{_VOLUME}{name}"


def volume_in(tree: str) -> str:
    """The volume whose tree it is; empty: none's."""
    return tree.removeprefix(_VOLUME) if tree.startswith(_VOLUME) else ""


How = Literal["schedule", "manual", "shutdown", "imported"]

Progress = Callable[[str, int], None]
"""Told what was just done (a stage) and a count or amount: bytes for `read`, else a running number.

In any thread."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the memory comes from, and what a restore has to compare with the host it is on.

    `created_ms`: wall clock, for people and for retention; `boot_ms`: milliseconds since the boot `boot_id`.
    `rootfs`: identity of what is below the writable layer: a path, or the digest of an image.
    `lineage`: which run it is of; one that is restored goes on with it. `ended`: the processes ended with it.
    `users`: the host's ids of those inside (`checkpoints.users`).
    `foreign`: the images were made by another program than masu.
    """

    container: str
    created_ms: int
    how: How
    spec_digest: str = ""
    frame_digest: str = ""
    rootfs: str = ""
    kernel: str = ""
    criu: str = ""
    runtime: str = ""
    machine: str = ""
    cpu_features: tuple[str, ...] = ()
    boot_id: str = ""
    boot_ms: int = 0
    frozen_ms: int = 0
    foreign: bool = False
    lineage: str = ""
    ended: bool = False
    users: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cpu_features": list(self.cpu_features)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """Raises KeyError, TypeError or ValueError for what is no such value; unknown keys are passed over."""
        known = {each.name: value[each.name] for each in fields(cls) if each.name in value}
        for name, kind in _KINDS.items():
            if type(known.get(name, kind())) is not kind:
                raise TypeError(f"{name} is not of type {kind.__name__}")
        if known["how"] not in {"schedule", "manual", "shutdown", "imported"}:
            raise ValueError(f"how: {known['how']!r}")
        if known["created_ms"] < 0:
            raise ValueError(f"created_ms: {known['created_ms']}")
        features = tuple(str(each) for each in known.pop("cpu_features", ()))
        return cls(**known, cpu_features=features)


_KINDS = {
    **{each.name: str for each in fields(Origin) if each.type == "str"},
    **{each.name: int for each in fields(Origin) if each.type == "int"},
    "foreign": bool,
    "ended": bool,
    "cpu_features": list,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a listing tells. Ids sort in the order of publication, whatever the clock did.

    `size`: bytes of everything in it, holes not counted; `stored`: bytes it added to the store when it was made;
    `alone`: bytes it would take in a store of its own.
    `images`: bytes of the memory in it; 0: it is not known.
    `trees`: names of the file-system snapshots in it. `key`: which key seals it, empty for none.
    `damage`: what a quick look found wrong; empty says nothing about flipped bits, which `verify` finds.
    """

    id: str
    origin: Origin | None
    size: int = 0
    stored: int = 0
    alone: int = 0
    trees: tuple[str, ...] = ()
    key: str = ""
    damage: str = ""
    images: int = 0

    @property
    def container(self) -> str:
        return self.origin.container if self.origin else ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to become a checkpoint.

    `images`: CRIU's image directory. `trees`: name → directory whose files belong to it (the overlay's upper
    directory, volumes). `extras`: small texts to keep with it, such as the bundle config, by plain file name.
    """

    origin: Origin
    images: str
    trees: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, bytes] = field(default_factory=dict)


Pending = Literal["", "coming", "swapped"]
"""Whether a container's files are in the middle of a restore: those of a checkpoint are beside them, or in their
place."""


@dataclass(frozen=True, slots=True)
class TreeCopy:
    """The files of a tree at one moment: bytes that were copied, and those that share blocks with the tree."""

    tree: str
    path: str
    copied: int
    cloned: int
    took_ms: int


@dataclass(frozen=True, slots=True)
class Removal:
    """`freed`: bytes given back to the disk. `kept`: why nothing more could be freed; empty when all was."""

    removed: tuple[str, ...]
    freed: int
    kept: str = ""
