"""Subvolumes of btrfs, and how one goes together with those that a container has made in it.

Those may be anywhere, deeper than any path is long, in each other, and read-only. So they are asked for by number
and opened by handle; no path is followed. Source: btrfs-ioctl(2), linux/btrfs.h, fs/btrfs/export.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from controller.host.syscalls import open_by_handle
from controller.host.text import opened_directory

_SUBVOLUME_CREATE, _SUBVOLUME_DESTROY = 0x5000940E, 0x5000940F
_INODE_LOOKUP: Final = 0xD0009412
_GET_FLAGS, _SET_FLAGS = 0x80089419, 0x4008941A
_QGROUP_CREATE: Final = 0x4010942A
_ABOUT, _BELOW = 0x81F8943C, 0xD000943D
"""BTRFS_IOC_GET_SUBVOL_INFO and BTRFS_IOC_GET_SUBVOL_ROOTREF."""
_VOLUME: Final = struct.Struct("=q4088s")
_NAME_AND_PLACE: Final = struct.Struct("=8x256s2Q")
"""Of struct btrfs_ioctl_get_subvol_info_args: its name, the subvolume around it, the directory in that."""
_READ_ONLY: Final = 1 << 1
_ROOT_INODE: Final = 256
_HANDLE_KIND: Final = 0x4D
"""FILEID_BTRFS_WITHOUT_PARENT: inode, subvolume, and the inode's generation, where 0 is any."""


def asked(descriptor: int, request: int, value: bytes) -> bytes:
    """What the kernel makes of it; Python takes no more than 1024 bytes that cannot be changed. Raises OSError."""
    buffer = bytearray(value)
    fcntl.ioctl(descriptor, request, buffer)
    return bytes(buffer)


def is_subvolume(descriptor: int) -> bool:
    return os.fstat(descriptor).st_ino == _ROOT_INODE


def number_of(descriptor: int) -> int:
    """Of the subvolume that a file is in."""
    found = asked(descriptor, _INODE_LOOKUP, struct.pack("=2Q4080x", 0, _ROOT_INODE))
    number: int = struct.unpack_from("=Q", found)[0]
    return number


def create(around: int, name: str) -> None:
    asked(around, _SUBVOLUME_CREATE, _VOLUME.pack(0, name.encode()))


def destroy(around: int, name: str) -> None:
    """With all that is in it; nothing where there is none of that name. Raises OSError."""
    try:
        with opened_directory(os.path.join(f"/proc/self/fd/{around}", name)) as descriptor:
            if not is_subvolume(descriptor):
                return
            number = number_of(descriptor)
            _destroy_below(descriptor)
    except FileNotFoundError:
        return
    _destroy(around, name.encode(), number)


def _destroy_below(mount: int) -> None:
    """The innermost ones first: a subvolume goes only when no other is in it."""
    left = _below(mount)
    if left:
        _make_writable(mount)
    while left:
        with _opened(mount, left[-1], _ROOT_INODE) as descriptor:
            within = _below(descriptor)
            if within:
                _make_writable(descriptor)
                left += within
                continue
            name, around, directory = _NAME_AND_PLACE.unpack_from(asked(descriptor, _ABOUT, bytes(504)))
        with _opened(mount, around, directory) as place:
            _destroy(place, name.rstrip(b"\0"), left.pop())
        left = left or _below(mount)


def _below(descriptor: int) -> list[int]:
    """Numbers of the subvolumes in this one, but not of those in them: the first 255."""
    buffer = bytearray(4096)
    try:
        fcntl.ioctl(descriptor, _BELOW, buffer)
    except OSError as error:
        if error.errno != errno.EOVERFLOW:  # there are more of them than it could say
            raise
    return [struct.unpack_from("=Q", buffer, 8 + 16 * each)[0] for each in range(buffer[-8])]


@contextmanager
def _opened(mount: int, subvolume: int, inode: int) -> Iterator[int]:
    handle = struct.pack("=2QI", inode, subvolume, 0)
    descriptor = open_by_handle(mount, _HANDLE_KIND, handle, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_writable(descriptor: int) -> None:
    """Nothing can be taken out of one that is read-only."""
    (flags,) = struct.unpack("=Q", asked(descriptor, _GET_FLAGS, bytes(8)))
    if flags & _READ_ONLY:
        asked(descriptor, _SET_FLAGS, struct.pack("=Q", flags & ~_READ_ONLY))


def _destroy(around: int, name: bytes, number: int) -> None:
    asked(around, _SUBVOLUME_DESTROY, _VOLUME.pack(0, name))
    with contextlib.suppress(OSError):  # newer kernels remove its group by themselves, in their own time
        asked(around, _QGROUP_CREATE, struct.pack("=2Q", 0, number))
