"""A container's birth as one value: the bundle config with holes, its root, and the digests that identify it.

The holes are what only the host knows: leased ids (`"auto"`) and partners' processes (`"container:NAME"`).
Pure values; the bundle config's shape is the OCI runtime specification's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controller.frozen import dataclass
from controller.model.device import Claim
from controller.model.process import Extent, IdRange

OWN_SYS = "own-sys"
"""In the bundle config: the source of a /sys that has to be mounted in the container's network namespace first."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`digest` changes with anything that needs a restart, `frame_digest` with what needs a new container."""

    digest: str
    frame_digest: str
    config: Mapping[str, Any]
    root: Mapping[str, Any]

    @property
    def args(self) -> tuple[str, ...]:
        return tuple(self.config.get("process", {}).get("args", ()))

    @property
    def partners(self) -> tuple[str, ...]:
        """Names of the containers whose namespaces this one joins."""
        spaces = self.config.get("linux", {}).get("namespaces", ())
        return tuple(sorted({each["partner"] for each in spaces if "partner" in each}))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The devices that it asks for."""
        return tuple(self.root.get("devices", ()))

    @property
    def secrets(self) -> tuple[tuple[str, bool], ...]:
        """Those that it is to have, and whether each is to be a variable."""
        return tuple(self.root.get("secrets", ()))

    @property
    def image(self) -> str:
        """The digest of the image below its layer; empty: it is none, or not known yet."""
        return str(self.root.get("image", ""))

    @property
    def rootfs(self) -> str:
        """Identity of what is below its layer."""
        return self.image or str(self.root["path"])

    @property
    def layered(self) -> bool:
        return bool(self.root.get("writable") == "overlay")

    @property
    def sized(self) -> bool:
        """Whether its layer is in a space of a hard size."""
        return bool(self.root.get("sized"))


@dataclass(frozen=True, slots=True)
class IdMapping:
    """User and group extents as (inside, outside, size)."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    @classmethod
    def of(cls, user: Mapping[str, Any], leased: IdRange | None) -> IdMapping:
        """`user`: as `Frame.root` has it. `leased`: of one that is `auto`."""
        if leased is not None:
            extent = (0, leased.first, leased.size)
            return cls((extent,), (extent,))
        return cls(tuple(map(tuple, user["uids"])), tuple(map(tuple, user["gids"])))

    def user(self, inside: int) -> int:
        return owner_of(inside, self.uids)

    def group(self, inside: int) -> int:
        return owner_of(inside, self.gids)

    @property
    def root_user(self) -> int:
        """The host id of the container's user 0."""
        return next((outside for inside, outside, _ in self.uids if inside == 0), 0)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle config for other programs to read: a variable that is a secret is left out of it."""
    process = dict(config.get("process", {}))
    process["env"] = [each for each in process.get("env", ()) if isinstance(each, str)]
    return {**config, "process": process}


def owner_of(inside: int, extents: Iterable[Sequence[int]]) -> int:
    """The host's id of one inside; the first of all for one that is nobody there."""
    found = [outside + inside - first for first, outside, size in extents if first <= inside < first + size]
    return found[0] if found else next((outside for _, outside, _ in extents), 0)


def resolve(config: Mapping[str, Any], ids: IdMapping | None, partners: Mapping[str, int]) -> dict[str, Any]:
    """The bundle config with every hole filled: `partners` maps container name → live pid."""
    linux = dict(config.get("linux", {}))
    linux["namespaces"] = [_namespace(each, partners) for each in linux.get("namespaces", ())]
    if ids:
        linux["uidMappings"] = [_extent(each) for each in ids.uids]
        linux["gidMappings"] = [_extent(each) for each in ids.gids]
    return {**config, "linux": linux}


def _namespace(each: Mapping[str, Any], partners: Mapping[str, int]) -> dict[str, Any]:
    if "partner" not in each:
        return dict(each)
    kind = {"network": "net", "mount": "mnt"}.get(each["type"], each["type"])
    return {"type": each["type"], "path": f"/proc/{partners[each['partner']]}/ns/{kind}"}


def _extent(extent: Extent) -> dict[str, int]:
    inside, outside, size = extent
    return {"containerID": inside, "hostID": outside, "size": size}
