"""Loop devices: a file of the host as a disk. Source: loop(4), linux/loop.h.

A device belongs to nobody and goes by itself (autoclear) when its last user has gone. Two devices of one file would
each write as if they were alone: whoever attaches holds a lock, and looks for one that is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from controller.errors import HostLacks, StepFailed
from controller.host.text import failed, read_text

CONTROL: Final = "/dev/loop-control"
MAJOR: Final = 7
_SYS: Final = "/sys/block"
_NAME: Final = re.compile(r"loop\d+")
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG: Final = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""struct loop_config: descriptor, block size, then struct loop_info64 with its flags as the ninth number."""
_RACED_ATTEMPTS: Final = 32


def of_mount(directory: str) -> str:
    """Read-only. The loop device whose file system a directory is on; empty: another device, or none."""
    device = os.stat(directory).st_dev
    if os.major(device) != MAJOR:
        return ""
    return os.path.basename(os.readlink(f"/sys/dev/block/{MAJOR}:{os.minor(device)}"))


def shows(device: str, image: str) -> bool:
    """Read-only. Whether the device's file is this one, and not another that has taken its name since."""
    path = (read_text(f"{_SYS}/{device}/loop/backing_file") or "").removesuffix("\n")
    try:
        return bool(path) and os.path.samefile(path, image)
    except OSError:
        return False


def find(image: str) -> str:
    """Read-only. The name of the device that shows the file; empty: none does."""
    devices = (each for each in os.listdir(_SYS) if _NAME.fullmatch(each))
    return next((each for each in devices if shows(each, image)), "")


@contextmanager
def attached(image: str) -> Iterator[str]:
    """The path of a device that shows the file, an existing one if there is one; it stays as long as it is used.

    Direct I/O where the file system can, so that nothing is cached twice. Raises HostLacks, StepFailed.
    """
    with ExitStack() as opened:
        try:
            around = os.open(os.path.dirname(image), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, around)
            fcntl.flock(around, fcntl.LOCK_EX)  # not the file's own: the device would go on holding that
            file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, file)
        except OSError as error:
            raise failed(error, "opening", image) from error
        device, held = _held(image) or _attach(file, image)
        opened.callback(os.close, held)
        yield device


def _held(image: str) -> tuple[str, int] | None:
    """An existing device that shows the file, and a descriptor of it; None: there is none."""
    for _ in range(_RACED_ATTEMPTS):
        found = find(image)
        if not found:
            return None
        held = hold_showing(found, image)
        if held is not None:
            return f"/dev/{found}", held
    raise StepFailed(f"{image}: its loop device comes and goes", path=image, errno=errno.EBUSY)


def hold_showing(device: str, image: str) -> int | None:
    """As `hold`; None when the device, once held, is not (any more) that of the file.

    A device goes by itself with its last user, and somebody else may have been given it since it was found.
    """
    try:
        held = hold(f"/dev/{device}")
    except StepFailed as error:
        if error.errno in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:  # it was even removed
            return None
        raise
    if shows(device, image):
        return held
    os.close(held)
    return None


def _attach(image: int, path: str) -> tuple[str, int]:
    """The device, and a descriptor of it: without one it would go again at once."""
    for _ in range(_RACED_ATTEMPTS):
        device = f"/dev/loop{_free()}"
        try:
            return device, _configure(device, image)
        except FileNotFoundError as error:
            raise HostLacks(f"{device} is not there: /dev has no nodes for loop devices") from error
        except OSError as error:
            if error.errno != errno.EBUSY:  # somebody else was faster
                raise failed(error, f"attaching {device} to", path) from error
    raise StepFailed(f"{path}: others take every free loop device first", path=path, errno=errno.EBUSY)


def _free() -> int:
    try:
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostLacks(f"{CONTROL} cannot be opened: modprobe loop") from error
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        raise failed(error, "asking for a free loop device:", CONTROL) from error
    finally:
        os.close(control)


def _configure(device: str, image: int) -> int:
    info = (0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, b"", b"", b"", 0, 0)
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _LOOP_CONFIGURE, _CONFIG.pack(image, 0, *info, *([0] * 8)))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def hold(device: str) -> int:
    """A descriptor of the device: it stays attached as long as that is open."""
    try:
        return os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise failed(error, "opening", device) from error


def follow_size(device: str) -> None:
    """After its file has become larger."""
    descriptor = hold(device)
    try:
        fcntl.ioctl(descriptor, _LOOP_SET_CAPACITY)
    except OSError as error:
        raise failed(error, "enlarging", device) from error
    finally:
        os.close(descriptor)
