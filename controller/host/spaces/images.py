"""loopImage: a sparse file with an ext4 file system, mounted on the host where everybody can see it.

The one mechanism that works everywhere; full means ENOSPC.
"""

from __future__ import annotations

import errno
import os
import shutil
from functools import cached_property

from controller.errors import StepFailed
from controller.host import rights, syscalls
from controller.host.spaces import ext4, loop
from controller.host.spaces.mechanism import Held
from controller.host.text import failed, remove_file
from controller.model.space import CONTENT, FILES, LOOP_IMAGE, Mechanism, NewSpace, Space

IMAGE = "image"
_MOST_STACKED = 8
"""So many mounts of others above ours are taken away; more of them is a fight."""
_SECTOR = 512
"""Unit of st_blocks, whatever the file system; man 3type stat."""


class LoopImages:
    name: Mechanism = LOOP_IMAGE

    @cached_property
    def _grows_mounted(self) -> bool:
        """ext4_resize_begin() asks for CAP_SYS_RESOURCE, which a container that masu itself runs in may lack."""
        return rights.may(rights.SYS_RESOURCE)

    def lack(self, directory: str) -> str:
        del directory
        if not shutil.which(ext4.MKFS):
            return f"{ext4.MKFS} is not installed: apt install {ext4.PACKAGE}"
        return "" if os.path.exists(loop.CONTROL) else f"{loop.CONTROL} is not there: modprobe loop"

    def make(self, base: str, space: Space, new: NewSpace) -> None:
        """What will be in the file system is the content of `fs`, which becomes the place to mount it on."""
        del space
        content = f"{base}/{CONTENT}"
        try:
            os.mkdir(content, 0o755)
            os.chown(content, *new.owner)
            ext4.make(f"{base}/{IMAGE}", new.size, f"{base}/{FILES}")
            os.rmdir(content)
        except OSError as error:
            raise failed(error, "making", base) from error

    def look(self, base: str) -> Held | None:
        image, place = f"{base}/{IMAGE}", f"{base}/{FILES}"
        try:
            file = os.stat(image)
            device = _mounted(base)
            attached = device or loop.find(image)
            size = ext4.size_of(f"/dev/{attached}" if attached else image, file.st_size)
            live = os.statvfs(place) if device else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(error, "looking at", image) from error
        taken = file.st_blocks * _SECTOR
        return Held(
            limit=size,
            used=(live.f_blocks - live.f_bfree) * live.f_frsize if live else taken,
            unfilled=max(0, file.st_size - taken),
            mounted=bool(device),
            attached=bool(attached),
            read_only=bool(live and live.f_flag & os.ST_RDONLY),
            grows=self._grows_mounted,
        )

    def grow(self, base: str, size: int) -> None:
        image, place = f"{base}/{IMAGE}", f"{base}/{FILES}"
        device = _mounted(base)
        if not device and loop.find(image):
            raise StepFailed(f"{image} is in use, but not mounted on {place}", path=image)
        try:
            if os.stat(image).st_size < size:
                os.truncate(image, size)
        except OSError as error:
            raise failed(error, "enlarging", image) from error
        if device:
            loop.follow_size(f"/dev/{device}")
            ext4.grow_mounted(place, size)
        else:
            ext4.grow_unmounted(image, size)

    def mount(self, base: str) -> None:
        place = f"{base}/{FILES}"
        for _ in range(_MOST_STACKED):
            if _mounted(base):
                return
            if not os.path.ismount(place):
                break
            _unmount(place)  # what is not ours covers the place
        with loop.attached(f"{base}/{IMAGE}") as device:
            ext4.mount(device, place)

    def unmount(self, base: str, *, busy: bool) -> None:
        place = f"{base}/{FILES}"
        while os.path.ismount(place):
            try:
                _unmount(place)
            except StepFailed as error:
                if error.errno != errno.EBUSY or not busy:
                    raise
                syscalls.detach_mount(place)

    def destroy(self, base: str, space: Space) -> None:
        del space
        remove_file(f"{base}/{IMAGE}")


def _mounted(base: str) -> str:
    """The name of the device, when what is mounted is this space's image."""
    device = loop.of_mount(f"{base}/{FILES}")
    return device if device and loop.shows(device, f"{base}/{IMAGE}") else ""


def _unmount(place: str) -> None:
    try:
        syscalls.unmount(place)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no mount any more
            raise failed(error, "unmounting", place) from error
