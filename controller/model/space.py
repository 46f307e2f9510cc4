"""Disk space of a hard size: a container's writable layer, or a volume. Pure values."""

from __future__ import annotations

from typing import Literal

from controller.frozen import dataclass
from controller.model.quantity import parse_bytes

Sort = Literal["rootfs", "volume"]
ROOTFS: Sort = "rootfs"
VOLUME_SORT: Sort = "volume"
Mechanism = Literal["projectQuota", "btrfsQgroup", "loopImage", ""]
"""What keeps the size; empty: nothing here can."""
LOOP_IMAGE: Mechanism = "loopImage"
BTRFS_QGROUP: Mechanism = "btrfsQgroup"
PROJECT_QUOTA: Mechanism = "projectQuota"

BLOCK = 4096
"""Sizes are whole blocks of ext4, rounded down: never more than was written."""
LEAST = 16 << 20
"""With less, ext4 has more of it than who is to use it."""

FILES = "fs"
CONTENT = f"{FILES}/data"
"""Below a space's directory: its file system, and in that what containers see; lost+found is beside it."""


@dataclass(frozen=True, slots=True, order=True)
class Space:
    """`name`: of the container whose layer it is, or of the volume."""

    sort: Sort
    name: str

    @property
    def text(self) -> str:
        return f"{self.sort}/{self.name}"


def content_path(spaces: str, space: Space) -> str:
    """Pure. The host's directory with what is in the space; `spaces`: the instance's directory of them."""
    return f"{spaces}/{space.text}/{CONTENT}"


def parse_size(written: str | float) -> int:
    """Bytes. Raises ValueError."""
    size = parse_bytes(written) // BLOCK * BLOCK
    if size < LEAST:
        raise ValueError(f"{written} is too small: a file system of its own takes at least {LEAST >> 20}Mi")
    return size


@dataclass(frozen=True, slots=True)
class Offer:
    """What a space would be made with; where there is no mechanism, `lack` says why.

    Of the file system that all spaces are on: bytes that are `free`, and those that spaces may still take.
    """

    mechanism: Mechanism = ""
    lack: str = ""
    free: int = 0
    promised: int = 0


@dataclass(frozen=True, slots=True)
class SpaceSeen:
    """`mechanism` is in force; empty: this version does not know it.

    `size` in bytes is what it was given, 0: there is no such space; `limit` is what is in force, `used` of it.
    `half`: something is half made or half removed.
    `mounted` where the host sees it, and `attached` to a device, which also containers keep it. `grows`: it can
    be grown while it is in use. `owner` of its content, as far as it is seen. `keep`: it outlives its file.
    """

    mechanism: Mechanism = ""
    size: int = 0
    limit: int = 0
    used: int = 0
    half: bool = False
    mounted: bool = False
    attached: bool = False
    read_only: bool = False
    grows: bool = True
    owner: tuple[int, int] | None = None
    keep: bool = False

    @property
    def exists(self) -> bool:
        return self.size > 0

    @property
    def holds_mount(self) -> bool:
        """Whether the host has a mount, and a device, for it."""
        return self.mounted and self.mechanism == LOOP_IMAGE

    @property
    def put_by(self) -> bool:
        """Its data stays, whether or not a file defines it."""
        return self.exists and self.keep and not self.half


@dataclass(frozen=True, slots=True)
class NewSpace:
    """What a space is made with."""

    size: int
    keep: bool = False
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class SpaceChange:
    """What is to be another; None stays as it is.

    `mounted`: where the host sees it; what is in use is not unmounted.
    """

    mounted: bool | None = None
    size: int | None = None
    keep: bool | None = None
    owner: tuple[int, int] | None = None
