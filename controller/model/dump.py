"""What CRIU is asked for and what it answers: processes to a directory of images and back. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from controller.frozen import dataclass
from controller.model.launch import Init
from controller.model.names import plain_path

LAYOUT_FILE = "masu-layout.json"
"""Beside the images: what masu itself has to know again when it restores them."""
RUNTIME_FILE = "runtime-"
"""What names beside the images begin with that are of the runtime's own memory, for this host alone: it would take
from an archive what may be started in the container, and how."""
PRE_DUMP = "pre"
"""Below the images of a dump: what a pre-dump has made, until the images are whole by themselves."""


@dataclass(frozen=True, slots=True)
class CriuAbilities:
    """The CRIU of this host. `usable`: a dump and a restore will work here, as far as `criu check` can tell.

    `said`: why it is not usable, in CRIU's own words. `tracks_memory`: pre-dumps pay (CONFIG_MEM_SOFT_DIRTY), and
    can be relied on (PAGEMAP_SCAN).
    """

    path: str = ""
    version: str = ""
    usable: bool = False
    tracks_memory: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that CRIU is certain not to dump. `where`: a descriptor or a mapping of the process, or empty."""

    kind: Literal["traced", "guest", "barred", "unsupported", "outside"]
    pid: int
    where: str
    what: str

    @property
    def text(self) -> str:
        place = f", {self.where}" if self.where else ""
        return f"process {self.pid}{place}: {self.what}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "pid": self.pid, "where": self.where or None, "message": self.what}


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a dump of a running container would come upon. `memory`: bytes that its processes have, each for itself:
    what several of them have in common since they forked is in a dump as often, too. `shared`: bytes of memory that
    is meant to be shared, as often as it is mapped."""

    obstacles: tuple[Obstacle, ...]
    memory: int
    shared: int


GHOST_LIMIT = 1 << 26


@dataclass(frozen=True, slots=True)
class DumpOrder:
    """One dump of a running container, into an empty directory that is best on a tmpfs.

    `tcp`: whether established connections are kept or closed in the image. `kill`: the processes end with the dump,
    and their connections stay locked until a restore. `resumes`: there is a pre-dump of the same processes in
    `directory`, and only what they have written since is dumped. `ghost_limit`: bytes of a file that was removed
    while it is open, up to which it becomes part of the image.
    """

    container: str
    init: Init
    directory: str
    timeout_ms: int
    tcp: Literal["established", "close"] = "established"
    kill: bool = False
    resumes: bool = False
    ghost_limit: int = GHOST_LIMIT


@dataclass(frozen=True, slots=True)
class Dumped:
    """`frozen_us`: how long the processes stood still, as CRIU measured it, the caller's own work included.

    `pages_inherited`: those that the dump did not write, because the pre-dump has them.
    `tcp`: what became of connections: they are closed, whatever was ordered, where a user namespace bars a restore.
    `thawed`: somebody had frozen them meanwhile.
    """

    frozen_us: int
    took_ms: int
    pages_written: int
    pages_inherited: int
    tcp: Literal["established", "close"]
    thawed: bool = False


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """One restore, in the place of a launch: `root` as for a launch, ids included; the bundle has been written.

    `directory`: the images. Whoever is root in the container must be able to reach it, not to list it.
    """

    container: str
    group: str
    root: Mapping[str, Any]
    directory: str
    timeout_ms: int
    tcp: Literal["established", "close"] = "established"


@dataclass(frozen=True, slots=True)
class MountHeld:
    """One mount at the time of a dump. `at`: as the kernel shows it; `target`: as the bundle config calls it.

    `external`: its contents are not in the images; `is_dir`: else a file.
    """

    at: str
    target: str
    external: bool
    is_dir: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What is around the processes of an image: mounts in the order in which they were made, and log pipes."""

    mounts: tuple[MountHeld, ...]
    pipes: tuple[int, ...]
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        mounts = [[each.at, each.target, each.external, each.is_dir] for each in self.mounts]
        return {"version": 1, "mounts": mounts, "pipes": list(self.pipes), "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """Raises ValueError, TypeError or KeyError: it is damaged, or of a later masu."""
        if value["version"] != 1:
            raise ValueError(f"layout version {value['version']} is not known to this masu")
        mounts = tuple(MountHeld(_place(a), _place(t), bool(e), bool(d)) for a, t, e, d in value["mounts"])
        return cls(mounts, tuple(int(each) for each in value["pipes"]), dict(value["facts"]))


def _place(value: Any) -> str:
    """An absolute path without detours: a restore makes directories by it."""
    if not isinstance(value, str) or "\0" in value or plain_path(value) != value:
        raise ValueError(f"not a place in a container: {value!r}")
    return value
