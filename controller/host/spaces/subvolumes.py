"""btrfsQgroup: a subvolume with a limit. Only where quotas are on: masu turns them on on nobody's file system.

Full means EDQUOT. Source: btrfs-qgroup(8), btrfs-ioctl(2), linux/btrfs.h.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Final

from controller.host.spaces import btrfs
from controller.host.spaces.mechanism import Held
from controller.host.text import failed, opened_directory, read_text
from controller.model.space import BTRFS_QGROUP, CONTENT, FILES, Mechanism, NewSpace, Space

_INFO: Final = 0x8400941F
_QGROUP_LIMIT: Final = 0x8030942B
_REFERENCED: Final = 1
"""BTRFS_QGROUP_LIMIT_MAX_RFER."""
_SYS: Final = "/sys/fs/btrfs"


class BtrfsSubvolumes:
    name: Mechanism = BTRFS_QGROUP

    def lack(self, directory: str) -> str:
        try:
            with opened_directory(directory) as descriptor:
                groups = _groups(descriptor)
        except OSError:
            return "not btrfs"
        return "" if os.path.isdir(groups) else "quotas of btrfs are off"

    def make(self, base: str, space: Space, new: NewSpace) -> None:
        del space
        place = f"{base}/{FILES}"
        try:
            os.rmdir(place)
            with opened_directory(base) as descriptor:
                btrfs.create(descriptor, FILES)
            self.grow(base, new.size)
            os.mkdir(f"{base}/{CONTENT}", 0o755)
            os.chown(f"{base}/{CONTENT}", *new.owner)
        except OSError as error:
            raise failed(error, "making subvolume", place) from error

    def look(self, base: str) -> Held | None:
        try:
            with opened_directory(f"{base}/{FILES}") as descriptor:
                if not btrfs.is_subvolume(descriptor):
                    return None
                group = f"{_groups(descriptor)}/0_{btrfs.number_of(descriptor)}"
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(error, "looking at subvolume", base) from error
        size, used = (int(read_text(f"{group}/{file}") or 0) for file in ("max_referenced", "referenced"))
        return Held(size, used, max(0, size - used))

    def grow(self, base: str, size: int) -> None:
        place = f"{base}/{FILES}"
        try:
            with opened_directory(place) as descriptor:
                wanted = struct.pack("=6Q", 0, _REFERENCED, size, 0, 0, 0)  # 0: the subvolume's own group
                btrfs.asked(descriptor, _QGROUP_LIMIT, wanted)
        except OSError as error:
            raise failed(error, "limiting subvolume", place) from error

    def mount(self, base: str) -> None:
        """It is where it is."""

    def unmount(self, base: str, *, busy: bool) -> None:
        """Likewise."""

    def destroy(self, base: str, space: Space) -> None:
        del space
        try:
            with opened_directory(base) as descriptor:
                btrfs.destroy(descriptor, FILES)
        except OSError as error:
            raise failed(error, "removing subvolume", f"{base}/{FILES}") from error


def _groups(descriptor: int) -> str:
    """The directory in which the kernel shows quota groups; it is there while quotas are on."""
    found = btrfs.asked(descriptor, _INFO, bytes(1024))
    parts = (found[start:end].hex() for start, end in pairwise((16, 20, 22, 24, 26, 32)))
    return f"{_SYS}/{'-'.join(parts)}/qgroups"
