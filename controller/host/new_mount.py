"""File systems that are put together out of everybody's sight, and attached when they are ready: fsopen(2)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Final

from controller.host import syscalls
from controller.host.syscalls import MountAttr

_PLAIN: Final = MountAttr(0)
_INERT: Final = MountAttr.NOSUID | MountAttr.NOEXEC | MountAttr.NODEV
NO_SWAP: Final = ("noswap", None)
"""Of a tmpfs, since Linux 6.4."""


class MountRefused(OSError):
    """The kernel's errno and, where it gives one, its own sentence about the cause."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(number, said or os.strerror(number))
        self.said = said


def new_mount(kind: str, settings: Iterable[tuple[str, str | None]], attributes: MountAttr = _PLAIN) -> int:
    """A descriptor of a new file system's mount, attached nowhere. Raises MountRefused.

    `settings`: name → value, None for a bare flag.
    """
    try:
        context = syscalls.fsopen(kind)
    except OSError as error:
        raise MountRefused(error.errno or 0, "") from error
    try:
        for key, value in settings:
            syscalls.fsconfig_set(context, key, value)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attributes)
    except OSError as error:
        raise MountRefused(error.errno or 0, syscalls.fscontext_log(context)) from error
    finally:
        os.close(context)


def tmpfs(source: str, size: int, extras: Iterable[Sequence[tuple[str, str | None]]]) -> int:
    """One for root alone, of `size` bytes, in which nothing is executed and no device opened. → see `new_mount`.

    `extras`: settings that not every kernel knows, the best first; else it is made without. Raises MountRefused.
    """
    settings = [("source", source), ("mode", "0700"), ("size", str(size))]
    for each in extras:
        with contextlib.suppress(MountRefused):
            return new_mount("tmpfs", [*settings, *each], _INERT)
    return new_mount("tmpfs", settings, _INERT)


def attach(tree: int, path: str) -> None:
    """Onto a directory. Raises OSError."""
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(tree, place)
    finally:
        os.close(place)
