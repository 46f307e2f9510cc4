"""The Dumps port: what a pre-dump and the dump after it have of a container's memory becomes one.

Pages go from file to file inside the kernel, and what has been copied is given back at once: it takes the memory of
one window more.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from controller.checkpoints.pagemap import PARENT, Run, encode, read
from controller.checkpoints.whole import Part, joined, parts
from controller.errors import CheckpointDamaged
from controller.host import syscalls
from controller.host.text import failed, remove_file, remove_tree
from controller.model.dump import PRE_DUMP

PARENT_LINK: Final = "parent"
"""CRIU's name for the way to the images of before."""
WINDOW: Final = 16 << 20
_PAGE_MAP: Final = "pagemap-"


class WholeDumps:
    """Stateless; one caller at a time for a directory."""

    def make_whole(self, directory: str) -> None:
        before = f"{directory}/{PRE_DUMP}"
        if not os.path.isdir(before):
            return
        try:
            for name in sorted(os.listdir(directory)):
                if name.startswith(_PAGE_MAP):
                    _make_whole(directory, before, name)
            remove_file(f"{directory}/{PARENT_LINK}")
            remove_tree(before)
        except OSError as error:
            raise failed(error, "putting together", error.filename or directory) from error


def _make_whole(directory: str, before: str, name: str) -> None:
    """The page map `name` and its pages file; those that have everything stay as they are."""
    image = _bytes(f"{directory}/{name}")
    number, runs = read(image)
    if not any(run.flags & PARENT for run in runs):
        return
    earlier = _bytes(f"{before}/{name}")
    own, whole = f"{directory}/pages-{number}.img", f"{before}/whole.img"
    with ExitStack() as stack:
        target = _opened(stack, whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        sources = {
            False: _Source(_opened(stack, own, os.O_RDWR), own),
            True: _Source(_opened(stack, path := f"{before}/pages-{read(earlier)[0]}.img", os.O_RDWR), path),
        }

        def copied() -> Iterator[Run]:
            page_size = os.sysconf("SC_PAGESIZE")
            for part in parts(read(image)[1], read(earlier)[1], page_size):
                sources[part.inherited].copy(part, page_size, target)
                yield part.run

        page_map = b"".join(encode(number, joined(copied(), os.sysconf("SC_PAGESIZE"))))
        sources[False].check_end()
    os.replace(whole, own)
    with open(f"{directory}/{name}", "wb") as file:
        file.write(page_map)


class _Source:
    """A pages file that is read once from its beginning to its end."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path
        self._upto = self._freed = 0

    def copy(self, part: Part, page_size: int, target: int) -> None:
        """Append to the target."""
        at, end = part.at * page_size, (part.at + part.run.pages) * page_size
        while at < end:
            done = os.copy_file_range(self._descriptor, target, min(end - at, WINDOW), at)
            if not done:
                raise CheckpointDamaged(f"{self._path} is shorter than its page map says")
            at += done
            self._upto = at
            self._free()

    def check_end(self) -> None:
        if os.fstat(self._descriptor).st_size != self._upto:
            raise CheckpointDamaged(f"{self._path} is longer than its page map says")

    def _free(self) -> None:
        if self._upto - self._freed >= WINDOW:
            syscalls.punch_hole(self._descriptor, self._freed, self._upto - self._freed)
            self._freed = self._upto


def _opened(stack: ExitStack, path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise CheckpointDamaged(f"{path} is missing", path=path, errno=errno.ENOENT) from error
