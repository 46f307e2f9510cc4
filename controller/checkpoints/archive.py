"""The layout of checkpoint archives as podman, CRI-O and checkpointctl have it, and what may be in one. Pure.

checkpoint-restore/checkpointctl, lib/metadata.go; containers/podman, libpod/container_internal_common.go.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from controller.checkpoints.paths import is_name
from controller.errors import ArchiveRefused
from controller.model.checkpoint import SPEC, UPPER, Checkpoint, Origin, volume_in, volume_tree
from controller.model.dump import RUNTIME_FILE
from controller.model.names import quote

IMAGES = "checkpoint"
VOLUMES = "volumes"
ROOTFS_DIFF, DELETED = "rootfs-diff.tar", "deleted.files"
CONFIG, NETWORK, OWN, SUMS = "config.dump", "network.status", "masu.json", "masu.sums"
STATISTICS = "stats-dump"
"""CRIU's, which has it among the images; the others look for it beside them."""
SHM = "devshm-checkpoint.tar"
"""What was in /dev/shm, which is a mount of the host's where podman and CRI-O have made it."""
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
"""What the overlay itself has in place of a file named OPAQUE."""
"""How layers say that a name, or everything older in a directory, is gone (image-spec, layer.md)."""
EXTRAS = frozenset({CONFIG, SPEC, NETWORK, STATISTICS, "checkpoint.json"})
IGNORED = frozenset(
    {"ctr.log", "dump.log", "bind.mounts", "io.kubernetes.cri-o.LogPath", "artifacts", OWN, DELETED}
)
LARGEST_TEXT = 4 << 20
MOST_MEMBERS = 1_000_000
LARGEST_IMPORT = 1 << 40

Role = Literal["image", "extra", "own", "sums", "deleted", "tree", "shm", "directory", "ignored"]


def role(name: str, *, directory: bool) -> tuple[Role, str]:
    """→ (what a member of the archive is, the name it goes by). Raises ArchiveRefused for what has no place."""
    parts = name.removeprefix("./").rstrip("/").split("/")
    if not all(is_name(each) for each in parts) and parts not in ([""], ["."]):
        raise ArchiveRefused(f"{quote(name)}: not a plain relative name")
    if directory:
        if parts[0] in {"", ".", IMAGES, VOLUMES, "artifacts"} and len(parts) == 1:
            return "directory", parts[0]
        raise ArchiveRefused(f"{quote(name)}: no such directory belongs in a checkpoint archive")
    found = _file_role(parts)
    if found is None:
        raise ArchiveRefused(f"{quote(name)}: no such file belongs in a checkpoint archive")
    return found


def _file_role(parts: list[str]) -> tuple[Role, str] | None:
    first, *rest = parts
    if len(rest) == 1 and first == IMAGES:
        return ("ignored", "") if rest[0].startswith(RUNTIME_FILE) else ("image", rest[0])
    if len(rest) == 1 and first == VOLUMES and rest[0].endswith(".tar"):
        return "tree", volume_tree(rest[0].removesuffix(".tar"))
    if rest or first in {IMAGES, VOLUMES}:
        return ("ignored", "") if first == "artifacts" else None
    special: Mapping[str, tuple[Role, str]] = {
        ROOTFS_DIFF: ("tree", UPPER), DELETED: ("deleted", DELETED), OWN: ("own", OWN),
        SUMS: ("sums", SUMS), SHM: ("shm", SHM),
    }  # fmt: skip
    return (
        special.get(first)
        or (("extra", first) if first in EXTRAS else None)
        or (("ignored", first) if first in IGNORED else None)
    )


def tree_member(name: str) -> str:
    """The file that a tree goes into."""
    return ROOTFS_DIFF if name == UPPER else f"{VOLUMES}/{volume_in(name)}.tar"


def config_dump(found: Checkpoint, origin: Origin) -> bytes:
    """What `checkpointctl show` reads, and podman of it what masu knows: names and times, no mounts, no image."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(origin.created_ms / 1000))
    value = {
        "id": hashlib.sha256(found.id.encode()).hexdigest(),
        "name": origin.container,
        "rootfsImageName": origin.rootfs,
        "runtime": origin.runtime.split(" ", 1)[0],
        "createdTime": created,
        "checkpointedTime": created,
    }
    return _text(value)


def spec_dump(origin: Origin, kept: bytes | None) -> bytes:
    """The bundle config as it was, marked in podman's way: that is whose layout the archive has.

    What a foreign archive had in its place was kept unread, and is left out where it is no config.
    """
    value = _mapping(kept) or {"ociVersion": "1.0.2"}
    said = value.get("annotations")
    notes = {
        **(said if isinstance(said, dict) else {}),
        "io.container.manager": "libpod",
        "io.kubernetes.cri.container-name": origin.container,
    }
    return _text({**value, "annotations": notes})


def own(found: Checkpoint, origin: Origin) -> bytes:
    """What masu needs of its own to take the archive back; others pass over it."""
    return _text({"version": 1, "id": found.id, "origin": origin.to_json(), "trees": sorted(found.trees)})


def parse_own(text: bytes | None) -> Origin | None:
    """None when it is not an archive of masu's. Raises ArchiveRefused when it is none that can be read."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        if value["version"] != 1:
            raise ArchiveRefused(f"{OWN}: version {quote(str(value['version']))} is not known here")
        return Origin.from_json(value["origin"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveRefused(f"{OWN} is not understood: {error}") from error


def check_sums(text: bytes | None, seen: Mapping[str, str]) -> None:
    """`seen`: member → digest of what was read. Raises ArchiveRefused unless exactly that was exported."""
    try:
        value = json.loads(text or b"null")
    except (ValueError, RecursionError) as error:
        raise ArchiveRefused(f"{SUMS} is not understood: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveRefused(f"{SUMS} is missing: the archive ends too early")
    differing = sorted(name for name in value.keys() | seen.keys() if value.get(name) != seen.get(name))
    if differing:
        raise ArchiveRefused(f"{quote(differing[0])}: not as it was exported")


def parse_deleted(text: bytes | None) -> tuple[str, ...]:
    """Relative paths that are gone from the root file system. Raises ArchiveRefused."""
    try:
        value = json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        raise ArchiveRefused(f"{DELETED} is not understood: {error}") from error
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ArchiveRefused(f"{DELETED} is no list of paths")
    return tuple(each.strip("/") for each in value)


def _mapping(text: bytes | None) -> dict[str, Any]:
    """Empty for anything else."""
    try:
        value = json.loads(text or b"null")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
