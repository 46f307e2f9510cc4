"""Where the files are that a container's processes watch (inotify, fanotify), as CRIU has to be told.

The kernel shows a watch as an inode, and a handle to open it by. An overlay opens none: CRIU then looks in a few
usual directories while everything stands still, and gives up. What it reads first is a file of paths as its own
pre-dumps leave it; it asks of each whether it still is that inode. So masu looks before the dump, and leaves such
a file. Sources: criu/fsnotify.c, criu/irmap.c, criu/include/magic.h; proc_pid_fdinfo(5).
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from controller.host import syscalls
from controller.host.criu_layout import opened
from controller.host.criu_mounts import MountLine, parse_mountinfo
from controller.host.criu_rpc import encode
from controller.host.text import failed, read_text

FILE: Final = "irmap-cache"
MOST: Final = 1_000_000
"""As many files are looked at as a checkpoint takes."""
_MAGIC: Final = (0x55105940, 0x57004059)
_WATCH: Final = re.compile(r"^(?:inotify|fanotify) .*\bino:([0-9a-f]+) sdev:([0-9a-f]+)", re.MULTILINE)
_WATCHERS: Final = frozenset({"anon_inode:inotify", "anon_inode:[inotify]", "anon_inode:[fanotify]"})

Inode = tuple[int, int]
"""The kernel's number of its device, and its own."""


def note(pid: int, members: Iterable[int], directory: str) -> None:
    """Write the file to `directory`, if anything on the overlay of its root is watched. Raises StepFailed."""
    wanted = {inode for member in members for inode in _watched(member)}
    places = _find(pid, wanted) if wanted else {}
    if not places:
        return
    path = f"{directory}/{FILE}"
    try:
        with open(path, "wb") as file:
            file.write(_encoded(places))
    except OSError as error:
        raise failed(error, "writing", path) from error


def _watched(pid: int) -> Iterator[Inode]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{number}") in _WATCHERS:
                    text = read_text(f"/proc/{pid}/fdinfo/{number}") or ""
                    yield from ((int(device, 16), int(inode, 16)) for inode, device in _WATCH.findall(text))


def _find(pid: int, wanted: set[Inode]) -> dict[Inode, str]:
    """Where they are, a path of each. No link is followed, and nothing entered that is mounted below."""
    found: dict[Inode, str] = {}
    lines = parse_mountinfo(read_text(f"/proc/{pid}/mountinfo") or "")
    mount = next((each for each in lines if each.at == "/"), None)
    if mount is None or mount.kind != "overlay":
        return found
    major, minor = mount.device.split(":")
    left = {each for each in wanted if each[0] == _number(int(major), int(minor))}
    with _top(pid, mount) as top:
        for path, seen in islice(_walk(top), MOST):
            if not left:
                break
            inode = (_number(os.major(seen.st_dev), os.minor(seen.st_dev)), seen.st_ino)
            if inode in left:
                left.remove(inode)
                found[inode] = f"/{path}"
    return found


@contextlib.contextmanager
def _top(pid: int, mount: MountLine) -> Iterator[int]:
    """Raises StepFailed when the container has ended."""
    path = f"/proc/{pid}/root"
    try:
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            top = opened(root, mount)
        finally:
            os.close(root)
    except OSError as error:
        raise failed(error, "opening", path) from error
    try:
        yield top
    finally:
        os.close(top)


def _walk(top: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything from there on, by its path."""
    yield ".", os.fstat(top)
    ahead = ["."]
    while ahead:
        directory = ahead.pop()
        with contextlib.suppress(OSError), _entries(top, directory) as entries:
            for entry in entries:
                path = os.path.normpath(f"{directory}/{entry.name}")
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(path)
                with contextlib.suppress(FileNotFoundError):
                    yield path, entry.stat(follow_symlinks=False)


@contextlib.contextmanager
def _entries(top: int, directory: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Raises OSError, also where another mount is."""
    descriptor = syscalls.read_plain(top, directory)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _number(major: int, minor: int) -> int:
    """Pure. As the kernel itself writes it: MKDEV in include/linux/kdev_t.h."""
    return major << 20 | minor


def _encoded(places: Mapping[Inode, str]) -> bytes:
    """Pure. Two magic numbers, then each entry after its length."""
    parts = [struct.pack("<2I", *_MAGIC)]
    for (device, inode), path in places.items():
        entry = encode([(1, device), (2, inode), (3, os.fsencode(path))])
        parts += [struct.pack("<I", len(entry)), entry]
    return b"".join(parts)
