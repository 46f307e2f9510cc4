"""btrfsQgroup: a subvolume with a limit. Only where quotas are on: masu turns them on on nobody's file system.

Full means EDQUOT. Source: btrfs-qgroup(8), btrfs-ioctl(2), linux/btrfs.h.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import uuid
from typing import Final

from controller.host.spaces.mechanism import Held
from controller.host.text import failed, opened_directory, read_text
from controller.model.space import CONTENT, FILES, Mechanism, NewSpace, Space

_SUBVOLUME_CREATE, _SUBVOLUME_DESTROY = 0x5000940E, 0x5000940F
_INODE_LOOKUP: Final = 0xD0009412
_INFO: Final = 0x8400941F
_QGROUP_CREATE, _QGROUP_LIMIT = 0x4010942A, 0x8030942B
_VOLUME: Final = struct.Struct("=q4088s")
_REFERENCED: Final = 1
"""BTRFS_QGROUP_LIMIT_MAX_RFER."""
_ROOT_INODE: Final = 256
_SYS: Final = "/sys/fs/btrfs"


class BtrfsSubvolumes:
    name: Mechanism = "btrfsQgroup"

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
                _asked(descriptor, _SUBVOLUME_CREATE, _VOLUME.pack(0, FILES.encode()))
            self.grow(base, new.size)
            os.mkdir(f"{base}/{CONTENT}", 0o755)
            os.chown(f"{base}/{CONTENT}", *new.owner)
        except OSError as error:
            raise failed(error, "making subvolume", place) from error

    def look(self, base: str) -> Held | None:
        try:
            with opened_directory(f"{base}/{FILES}") as descriptor:
                if os.fstat(descriptor).st_ino != _ROOT_INODE:
                    return None
                group = f"{_groups(descriptor)}/0_{_subvolume(descriptor)}"
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
                _asked(descriptor, _QGROUP_LIMIT, wanted)
        except OSError as error:
            raise failed(error, "limiting subvolume", place) from error

    def mount(self, base: str) -> None:
        """It is where it is."""

    def unmount(self, base: str, *, busy: bool) -> None:
        """Likewise."""

    def destroy(self, base: str, space: Space) -> None:
        del space
        place = f"{base}/{FILES}"
        try:
            with opened_directory(place) as descriptor:
                number = _subvolume(descriptor) if os.fstat(descriptor).st_ino == _ROOT_INODE else 0
            if number:
                with opened_directory(base) as descriptor:
                    _asked(descriptor, _SUBVOLUME_DESTROY, _VOLUME.pack(0, FILES.encode()))
                    with contextlib.suppress(
                        OSError
                    ):  # newer kernels remove it by themselves, in their own time
                        _asked(descriptor, _QGROUP_CREATE, struct.pack("=2Q", 0, number))
        except FileNotFoundError:
            return
        except OSError as error:
            raise failed(error, "removing subvolume", place) from error


def _groups(descriptor: int) -> str:
    """The directory in which the kernel shows quota groups; it is there while quotas are on."""
    found = _asked(descriptor, _INFO, bytes(1024))
    return f"{_SYS}/{uuid.UUID(bytes=found[16:32])}/qgroups"


def _subvolume(descriptor: int) -> int:
    found = _asked(descriptor, _INODE_LOOKUP, struct.pack("=2Q4080x", 0, _ROOT_INODE))
    number: int = struct.unpack_from("=Q", found)[0]
    return number


def _asked(descriptor: int, request: int, value: bytes) -> bytes:
    """What the kernel makes of it; Python takes no more than 1024 bytes that cannot be changed."""
    buffer = bytearray(value)
    fcntl.ioctl(descriptor, request, buffer)
    return bytes(buffer)
