"""System calls that Python 3.11 does not wrap: one thin, typed function each.

They raise OSError with the kernel's errno and decide nothing. File descriptors returned are close-on-exec and
the caller's to close.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from enum import IntFlag
from typing import Any, Final

from controller.frozen import dataclass

# Namespace types, and the file-system context, as setns(2) and unshare(2) take them.
CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWTIME: Final = 0x00000080

MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000
_SYNC_FILE_RANGE_WRITE: Final = 2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

# Calls newer than 2018 have one number on every architecture that masu runs on (x86_64, aarch64, riscv64 …):
# include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl.
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_OPENAT2: Final = 437
_PIDFD_GETFD: Final = 438
_MOUNT_SETATTR: Final = 442
_QUOTACTL_FD: Final = 443

# An older one, which has its own number on some: setresuid, the one of 32-bit ids where there are two.
_OLD_NUMBERS: Final = {"x86_64": 117, "ppc64le": 164, "s390x": 208}
_SETRESUID: Final = 208 if sys.maxsize < 1 << 32 else _OLD_NUMBERS.get(os.uname().machine, 147)

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOVE_MOUNT_BY_DESCRIPTORS: Final = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_AT_FDCWD: Final = -100
_FALLOC_FL_KEEP_SIZE: Final = 0x01
_FALLOC_FL_PUNCH_HOLE: Final = 0x02
_RENAME_EXCHANGE: Final = 2
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_MS_PRIVATE: Final = 1 << 18
_RESOLVE_NO_XDEV: Final = 0x01
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_CACHED: Final = 0x20
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_BASIC_STATS: Final = 0x07FF
_STATX: Final = struct.Struct("=16xI8xH18xQ72xII120x")
"""struct statx: stx_nlink, stx_mode, stx_blocks, stx_rdev_major and _minor."""
_RACED_ATTEMPTS: Final = 32


class MountAttr(IntFlag):
    """Per-mount attributes of mount_setattr(2) and fsmount(2)."""

    RDONLY = 0x01
    NOSUID = 0x02
    NODEV = 0x04
    NOEXEC = 0x08
    NOATIME = 0x10
    STRICTATIME = 0x20
    ATIME = 0x70  # the mask of the access-time field, whose value 0 is relatime
    NODIRATIME = 0x80
    NOSYMFOLLOW = 0x200000


@dataclass(frozen=True, slots=True)
class AttrChange:
    """Attributes to set and to clear on a mount."""

    raised: MountAttr
    cleared: MountAttr


class _MountAttrStruct(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(number: int, *arguments: Any) -> int:
    wide = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return _checked(_LIBC.syscall(ctypes.c_long(number), *wide))


def setns(descriptor: int, kinds: int) -> None:
    """Enter a namespace with this thread, or those of a pidfd's process that `kinds` names; man 2 setns."""
    _checked(_LIBC.setns(descriptor, kinds))


def unshare(kinds: int) -> None:
    """For this thread alone; man 2 unshare."""
    _checked(_LIBC.unshare(kinds))


def seteuid(uid: int) -> None:
    """The effective user of this thread alone, which libc's would change for all; man 2 setresuid."""
    _call(_SETRESUID, -1, uid, -1)


def set_file_owner(uid: int, gid: int) -> None:
    """As whom this thread makes and removes files: those of a file system of a user namespace can be nobody's
    whom it does not know (EOVERFLOW); man 2 setfsuid, which glibc does for the calling thread alone.
    """
    _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)


def mount(source: str, target: str, flags: int) -> None:
    """Bind, or change propagation: no file system type and no data; man 2 mount."""
    _checked(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None))


def detach_mount(target: str) -> None:
    """Take a mount out of this thread's mount namespace; users of it go on; man 2 umount, MNT_DETACH."""
    _checked(_LIBC.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW))


def unmount(target: str) -> None:
    """Take the topmost mount away, unless something is in use on it; man 2 umount."""
    _checked(_LIBC.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW))


def quotactl_fd(descriptor: int, command: int, number: int, value: Any) -> None:
    """Quotas of the file system that an open file is on; man 2 quotactl_fd. `value`: read or filled in."""
    _call(_QUOTACTL_FD, descriptor, command, number, ctypes.byref(value))


def sethostname(name: str) -> None:
    """In this thread's uts namespace; at most 64 bytes; man 2 sethostname."""
    raw = os.fsencode(name)
    _checked(_LIBC.sethostname(raw, ctypes.c_size_t(len(raw))))


def open_tree(path: str, *, recursive: bool) -> int:
    """A detached copy of the mount at `path`, symlinks followed; man 2 open_tree, OPEN_TREE_CLONE."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def move_mount(tree: int, target: int) -> None:
    """Attach a detached mount onto an open directory or file, by descriptors alone; man 2 move_mount."""
    _call(_MOVE_MOUNT, tree, b"", target, b"", _MOVE_MOUNT_BY_DESCRIPTORS)


def mount_setattr(tree: int, change: AttrChange, *, recursive: bool) -> None:
    """Change attributes of an open mount; man 2 mount_setattr."""
    _set_attributes(tree, _MountAttrStruct(change.raised, change.cleared, 0, 0), recursive=recursive)


def map_owners(tree: int, users: int) -> None:
    """Show an open, detached mount with its owners as a user namespace maps them; man 2 mount_setattr."""
    _set_attributes(tree, _MountAttrStruct(_MOUNT_ATTR_IDMAP, 0, 0, users), recursive=False)


def make_private(tree: int) -> None:
    """No mount event passes into or out of an open mount and those below it any more."""
    _set_attributes(tree, _MountAttrStruct(0, 0, _MS_PRIVATE, 0), recursive=True)


def _set_attributes(tree: int, wanted: _MountAttrStruct, *, recursive: bool) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _call(_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def fsopen(kind: str) -> int:
    """A context in which a file system of this kind is put together; man 2 fsopen."""
    return _call(_FSOPEN, os.fsencode(kind), 1)  # FSOPEN_CLOEXEC


def fsconfig_set(context: int, key: str, value: str | None) -> None:
    """One option of a file system to be, or a bare flag when `value` is None; man 2 fsconfig."""
    if value is None:
        _call(_FSCONFIG, context, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0)
    else:
        _call(_FSCONFIG, context, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)


def fsconfig_create(context: int) -> None:
    """Make the superblock from the options given so far."""
    _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: MountAttr) -> int:
    """A detached mount of the file system made in `context`; man 2 fsmount."""
    return _call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, int(attributes))


def fscontext_log(context: int) -> str:
    """What the kernel says of what was asked in `context`, such as `e tmpfs: Bad value for size`; or nothing."""
    said = []
    with contextlib.suppress(OSError):  # ENODATA: that was all
        while line := os.read(context, 4096):
            said.append(line.decode(errors="replace").strip())
    return "; ".join(said)


class _FileHandle(ctypes.Structure):
    """struct file_handle; 128 is MAX_HANDLE_SZ."""

    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


def open_by_handle(mount: int, kind: int, handle: bytes, flags: int) -> int:
    """A file of the file system that `mount` is in, by what this calls it; man 2 open_by_handle_at."""
    found = _FileHandle(len(handle), kind)
    ctypes.memmove(found.handle, handle, len(handle))
    return _checked(_LIBC.open_by_handle_at(mount, ctypes.byref(found), flags | os.O_CLOEXEC))


def file_system(path: str) -> int:
    """The magic number of the file system that a path is on; man 2 statfs, f_type, which comes first."""
    buffer = (ctypes.c_long * 32)()
    _checked(_LIBC.statfs(os.fsencode(path), buffer))
    return int(buffer[0])


def open_below(root: int, path: str, *, known: bool = False) -> int:
    """An O_PATH descriptor of what `path` means to a process whose root is `root`; man 2 openat2.

    Symlinks, `..` and absolute targets stay below `root`; magic links (/proc/PID/fd/…) are refused. `known`: EAGAIN
    where the kernel would have to ask a file system for the way; it never has to for where something is mounted.
    """
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    return _openat2(root, path, 0, resolve | (_RESOLVE_CACHED if known else 0))


def open_plain(root: int, path: str, *, across: bool) -> int:
    """An O_PATH descriptor of the directory `path` below `root`, on which way there is no symlink (ELOOP), no `..`,
    and unless `across` no other mount (EXDEV); man 2 openat2.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    return _openat2(root, path, os.O_DIRECTORY, resolve | (0 if across else _RESOLVE_NO_XDEV))


def read_plain(root: int, path: str) -> int:
    """The same, to be read or to be worked in, and across no other mount."""
    plain = open_plain(root, path, across=False)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=plain)
    finally:
        os.close(plain)


def _openat2(root: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC | flags, 0, resolve)
    for _ in range(_RACED_ATTEMPTS):  # EAGAIN: something was renamed meanwhile, openat2(2) says to try again
        try:
            return _call(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@dataclass(frozen=True, slots=True)
class FileSeen:
    """`blocks` of 512 bytes; `device`: major and minor of a device node."""

    mode: int
    links: int
    blocks: int
    device: tuple[int, int]


def look_without_asking(path: str) -> FileSeen:
    """What the kernel itself knows of a file, links followed: no file system is asked; man 2 statx."""
    found = ctypes.create_string_buffer(_STATX.size)
    asked = ctypes.c_uint(_STATX_BASIC_STATS)
    _checked(_LIBC.statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, asked, found))
    links, mode, blocks, major, minor = _STATX.unpack(found.raw)
    return FileSeen(mode, links, blocks, (major, minor))


def exchange(one: str, other: str) -> None:
    """renameat2(2): each has the other's name, at one moment."""
    _checked(_LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE))


def syncfs(path: str) -> None:
    """All of the file system that `path` is on is on its disk; man 2 syncfs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_LIBC.syncfs(descriptor))
    finally:
        os.close(descriptor)


def punch_hole(descriptor: int, start: int, size: int) -> None:
    """Give back what a part of a file takes; it reads as zeros; man 2 fallocate."""
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    _checked(_LIBC.fallocate64(descriptor, mode, ctypes.c_int64(start), ctypes.c_int64(size)))


def start_writing(descriptor: int, at: int, size: int) -> None:
    """These bytes of a file go on their way to the disk; nobody waits for it, man 2 sync_file_range."""
    _checked(
        _LIBC.sync_file_range(
            descriptor, ctypes.c_int64(at), ctypes.c_int64(size), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
        )
    )


def free_bytes(path: str) -> int:
    """What its file system still takes, without what is reserved for root."""
    seen = os.statvfs(path)
    return seen.f_bavail * seen.f_frsize


def statfs_type(path: str) -> int:
    """The magic number of the file system that `path` is on; man 2 statfs, `f_type`."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_LIBC.statfs(os.fsencode(path), buffer))
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """A copy of another process's descriptor; man 2 pidfd_getfd."""
    return _call(_PIDFD_GETFD, pidfd, descriptor, 0)
