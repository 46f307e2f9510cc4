"""An ext4 file system in a file: made, measured, grown and mounted. Source: ext4(5), mke2fs(8), resize2fs(8),
the kernel's filesystems/ext4/super.rst."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from controller.errors import HostLacks, StepFailed
from controller.host import command
from controller.host.new_mount import MountRefused, attach, new_mount
from controller.host.syscalls import MountAttr
from controller.host.text import failed
from controller.model.process import CANNOT_RUN
from controller.model.space import BLOCK

MKFS: Final = "mkfs.ext4"
PACKAGE: Final = "e2fsprogs"
MKFS_S: Final = 120.0
RESIZE_S: Final = 600.0
_RESIZE_FS: Final = 0x40086610
"""EXT4_IOC_RESIZE_FS as most architectures number it."""
_SUPERBLOCK: Final = 1024
_MAGIC: Final = 0xEF53
_SMALLEST_GROUP: Final = 8 << 20
"""A last group of blocks that would hold little more than its own tables is left out, by mke2fs and the kernel."""
_OPTIONS: Final = (("errors", "remount-ro"), ("discard", None))
"""What is deleted inside is free outside."""
_REPAIRED: Final = 1
"""e2fsck(8): 0 nothing was wrong, 1 all was put right."""


def make(image: str, size: int, skeleton: str) -> None:
    """With what is in `skeleton`. What is zero is not written: the file takes what is in use, and no more."""
    extended = "lazy_itable_init=0,assume_storage_prezeroed=1,nodiscard"
    form = ("-q", "-F", "-b", str(BLOCK), "-m", "0", "-E", extended, "-d", skeleton)
    status, said = command.output([MKFS, *form, image, str(size // BLOCK)], MKFS_S)
    if status == CANNOT_RUN:
        raise HostLacks(f"{MKFS} is not installed: apt install {PACKAGE}")
    if status:
        raise StepFailed(f"{MKFS} {image}: {said.strip()}", path=image)
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # before it gets its name
    finally:
        os.close(descriptor)


def size_of(path: str, container: int) -> int:
    """Read-only. Of the file system on a device or in a file of `container` bytes, as far as that can be filled.

    What is no file system counts as one: mounting it tells what is wrong with it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        block = os.pread(descriptor, 1024, _SUPERBLOCK)
    finally:
        os.close(descriptor)
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != _MAGIC:
        return container
    low, scale, group = (struct.unpack_from("<I", block, at)[0] for at in (0x04, 0x18, 0x20))
    blocks = low | struct.unpack_from("<I", block, 0x150)[0] << 32
    size: int = blocks << (10 + scale)
    is_full = blocks % group == 0 and 0 < container - size < _SMALLEST_GROUP
    return container if is_full else size


def mount(device: str, target: str) -> None:
    """Neither set-user-id programs nor device nodes of it mean anything outside of a container."""
    try:
        tree = new_mount("ext4", (("source", device), *_OPTIONS), MountAttr.NOSUID | MountAttr.NODEV)
    except MountRefused as error:
        raise failed(error, f"mounting {device} ({error.said or 'no reason given'}) on", target) from error
    try:
        attach(tree, target)
    except OSError as error:
        raise failed(error, f"mounting {device} on", target) from error
    finally:
        os.close(tree)


def grow_mounted(directory: str, size: int) -> None:
    """Whoever uses it goes on. Takes CAP_SYS_RESOURCE."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _RESIZE_FS, struct.pack("=Q", size // BLOCK))
    except OSError as error:
        raise failed(error, "growing the file system on", directory) from error
    finally:
        os.close(descriptor)


def grow_unmounted(image: str, size: int) -> None:
    """It is checked first, as resize2fs wants it."""
    status, said = command.output(["e2fsck", "-f", "-p", image], RESIZE_S)
    if status in {0, _REPAIRED}:
        status, said = command.output(["resize2fs", image, str(size // BLOCK)], RESIZE_S)
    if status == CANNOT_RUN:
        raise HostLacks(f"e2fsck and resize2fs are not installed: apt install {PACKAGE}")
    if status:
        raise StepFailed(f"growing {image}: {said.strip()}", path=image)
