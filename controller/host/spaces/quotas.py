"""projectQuota: a directory whose files all belong to one project, which has a limit in the host's own file system.

Nothing is mounted, and nothing lies between a container and the disk. Full means EDQUOT on ext4, ENOSPC on xfs.
Source: quotactl_fd(2), linux/quota.h, linux/dqblk_xfs.h, linux/fs.h (struct fsxattr), projid(5).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

from controller.errors import StepFailed
from controller.host.number_file import NumberFile
from controller.host.spaces.mechanism import Held
from controller.host.syscalls import quotactl_fd
from controller.host.text import failed, opened_directory, read_text
from controller.model.space import BLOCK, CONTENT, FILES, PROJECT_QUOTA, Mechanism, NewSpace, Space

FIRST, LAST = 0x4D00_0000, 0x4DFF_FFFF
"""Project ids from here on are masu's; those of /etc/projid are passed over."""
LISTED: Final = "/etc/projid"
_PRJQUOTA: Final = 2
_Q_GETQUOTA, _Q_SETQUOTA, _Q_XGETQSTATV = 0x800007, 0x800008, 0x5808
_ENFORCED: Final = 1 << 5
"""FS_QUOTA_PDQ_ENFD: limits of projects are kept, not only counted."""
_UNIT: Final = 1024
"""QIF_DQBLKSIZE, of limits."""
_VALID_LIMITS: Final = 1 | 4
"""QIF_BLIMITS and QIF_ILIMITS."""
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES: Final = struct.Struct("=5I8x")
_INHERITED: Final = 0x200
"""FS_XFLAG_PROJINHERIT."""


class _Quota(ctypes.Structure):
    """struct if_dqblk."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("hard", "soft", "used", "ihard", "isoft", "inodes", "b", "i")),
        ("valid", ctypes.c_uint32),
    )


class _State(ctypes.Structure):
    """struct fs_quota_statv, of which the flags are of interest."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("pad", ctypes.c_uint8),
        ("flags", ctypes.c_uint16),
        ("rest", ctypes.c_uint8 * 252),
    )


class ProjectQuotas:
    """Project ids of all instances are in one locked file."""

    name: Mechanism = PROJECT_QUOTA

    def __init__(self, instance: str, numbers: str) -> None:
        self._instance, self._numbers = instance, NumberFile(numbers)

    def lack(self, directory: str) -> str:
        state = _State(version=1)
        with opened_directory(directory) as descriptor:
            try:
                quotactl_fd(descriptor, _command(_Q_XGETQSTATV), 0, state)
            except OSError as error:
                return f"no quotas of projects: {os.strerror(error.errno or 0)}"
        return "" if state.flags & _ENFORCED else "quotas of projects are not enforced: mount with prjquota"

    def make(self, base: str, space: Space, new: NewSpace) -> None:
        place = f"{base}/{FILES}"
        with opened_directory(place) as descriptor:

            def choose(taken: list[int]) -> int | None:
                avoided = {*taken, *_listed()}
                free = (each for each in range(FIRST, LAST) if each not in avoided)
                return next((each for each in free if not _is_used(descriptor, each)), None)

            project = self._numbers.lease(self._key(space), choose)
            try:
                flags, extent, extents, _, cow = _attributes(descriptor)
                changed = _ATTRIBUTES.pack(flags | _INHERITED, extent, extents, project, cow)
                fcntl.ioctl(descriptor, _SET_ATTRIBUTES, changed)
                _limit(descriptor, project, new.size)
                os.mkdir(f"{base}/{CONTENT}", 0o755)
                os.chown(f"{base}/{CONTENT}", *new.owner)
            except OSError as error:
                raise failed(error, f"giving project {project} to", place) from error

    def look(self, base: str) -> Held | None:
        try:
            with opened_directory(f"{base}/{FILES}") as descriptor:
                project = _attributes(descriptor)[3]
                found = _quota(descriptor, project) if project else _Quota()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(error, "looking at the quota of", base) from error
        size = found.hard * _UNIT
        return Held(size, found.used, max(0, size - found.used))

    def grow(self, base: str, size: int) -> None:
        place = f"{base}/{FILES}"
        try:
            with opened_directory(place) as descriptor:
                project = _attributes(descriptor)[3]
                if not project:  # everything that belongs to none would be limited
                    raise StepFailed(f"{place} belongs to no project any more", path=place)
                _limit(descriptor, project, size)
        except OSError as error:
            raise failed(error, "raising the quota of", place) from error

    def mount(self, base: str) -> None:
        """It is where it is."""

    def unmount(self, base: str, *, busy: bool) -> None:
        """Likewise."""

    def destroy(self, base: str, space: Space) -> None:
        """The files go with the directory, after this; the limit goes first, and then nobody asks for it."""
        project = self._numbers.of(self._key(space))
        if project is None:
            return
        try:
            with opened_directory(base) as descriptor:
                _limit(descriptor, project, 0)
        except OSError as error:
            if error.errno != errno.ESRCH:  # quotas were turned off
                raise failed(error, f"lifting the quota of project {project} in", base) from error
        self._numbers.release(self._key(space))

    def _key(self, space: Space) -> str:
        return f"{self._instance}/{space.text}"


def _command(what: int) -> int:
    """QCMD of linux/quota.h."""
    return ctypes.c_int32(what << 8 | _PRJQUOTA).value


def _attributes(descriptor: int) -> tuple[int, int, int, int, int]:
    """Flags, extent size, extents, project, extent size of copies."""
    found = fcntl.ioctl(descriptor, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    flags, extent, extents, project, cow = _ATTRIBUTES.unpack(found)
    return flags, extent, extents, project, cow


def _quota(descriptor: int, project: int) -> _Quota:
    found = _Quota()
    try:
        quotactl_fd(descriptor, _command(_Q_GETQUOTA), project, found)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ESRCH}:  # xfs knows none yet; quotas were turned off
            raise
    return found


def _is_used(descriptor: int, project: int) -> bool:
    found = _quota(descriptor, project)
    return bool(found.used or found.inodes or found.hard)


def _limit(descriptor: int, project: int, size: int) -> None:
    """Files are counted, too: a million empty ones take no space, but the file system has only so many."""
    wanted = _Quota(hard=size // _UNIT, ihard=size // BLOCK, valid=_VALID_LIMITS)
    quotactl_fd(descriptor, _command(_Q_SETQUOTA), project, wanted)


def _listed() -> Iterator[int]:
    for line in (read_text(LISTED) or "").splitlines():
        number = line.rpartition(":")[2].strip()
        if number.isdigit():
            yield int(number)
