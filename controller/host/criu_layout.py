"""Looks at a running container before a dump: its mounts, its log pipes, its connections. Read-only."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.criu_mounts import DEVICES, LINKS, MountLine, held, parse_mountinfo
from controller.host.mount_table import path_inside
from controller.host.mountinfo import is_programs
from controller.host.text import failed, read_text
from controller.model.dump import Layout

_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_USE: Final = re.compile(r"^TCP6?: inuse (\d+)", re.MULTILINE)
_QUIET: Final = frozenset({"0A", "06", "07"})
"""LISTEN, TIME_WAIT and CLOSE in /proc/net/tcp: nothing of them has to stand still during a dump."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`bare`: where a tmpfs with nothing in it is, which the images therefore will not have → its top, open: while
    everything stands still no path is gone through, on which somebody else's file system may be."""

    layout: Layout
    bare: Mapping[str, int]

    def close(self) -> None:
        for descriptor in self.bare.values():
            os.close(descriptor)


def observe(pid: int, config: Mapping[str, Any], pipes_file: str, *, keep_all: bool) -> Seen:
    """`keep_all`: no tmpfs counts as empty. The caller closes it. Raises StepFailed."""
    text = read_text(f"/proc/{pid}/mountinfo")
    if not text:
        raise StepFailed(f"process {pid} has ended")
    lines = parse_mountinfo(text)
    program = next((each.at for each in lines if is_programs(each.kind)), "")
    if program:
        raise StepFailed(
            f"the file system on {program} is a program's (FUSE), which could stop the dump for ever: unmount it"
        )
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise failed(error, "opening", f"/proc/{pid}/root") from error
    try:
        bare = {} if keep_all else _bare_ones(root, lines)
        try:
            outside = parse_mountinfo(read_text("/proc/self/mountinfo") or "")
            devices = (each.device for each in outside)
            found = held(lines, devices, _targets(root, config), bare, lambda at: _is_directory(root, at))
            pipes = json.loads(read_text(pipes_file) or "{}").get("pipes", ())
            for at in bare.keys() - {each.at for each in found if each.external}:
                os.close(bare.pop(at))
        except BaseException:
            Seen(Layout((), ()), bare).close()
            raise
    finally:
        os.close(root)
    return Seen(Layout(found, tuple(pipes)), bare)


def _targets(root: int, config: Mapping[str, Any]) -> dict[str, str]:
    """Where each mount of the bundle config really is, links followed → what the config calls it."""
    return {_resolved(root, each["destination"]): each["destination"] for each in config["mounts"]}


def _resolved(root: int, path: str) -> str:
    try:
        descriptor = syscalls.open_below(root, path)
    except OSError:
        return path
    try:
        return path_inside(descriptor)
    finally:
        os.close(descriptor)


def _is_directory(root: int, at: str) -> bool:
    try:
        descriptor = syscalls.open_below(root, at)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _bare_ones(root: int, lines: Iterable[MountLine]) -> dict[str, int]:
    """Where a tmpfs is that holds nothing but what is mounted on it, and in /dev the usual devices → its top."""
    lines = tuple(lines)
    points = frozenset(each.at for each in lines)
    found: dict[str, int] = {}
    for each in (each for each in lines if each.kind == "tmpfs"):
        try:
            top = opened(root, each)
        except OSError:
            continue
        if each.at not in found and _is_bare(top, each.at, points):
            found[each.at] = top
        else:
            os.close(top)
    return found


def opened(root: int, line: MountLine) -> int:
    """The top of a mount, to be read. No link is followed. Raises OSError also where something else is on it."""
    place = syscalls.open_plain(root, line.at.lstrip("/") or ".", across=True)
    try:
        seen = os.fstat(place)
        if f"{os.major(seen.st_dev)}:{os.minor(seen.st_dev)}" != line.device:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), line.at)
        return os.open(".", _READ, dir_fd=place)
    finally:
        os.close(place)


def _is_bare(top: int, at: str, points: frozenset[str]) -> bool:
    try:
        return _bare(top, at, points)
    except OSError:
        return False


def _bare(directory: int, at: str, points: frozenset[str]) -> bool:
    with os.scandir(directory) as entries:
        for entry in entries:
            path = f"{at}/{entry.name}"
            if path in points or (at == "/dev" and _usual(entry, directory)):
                continue
            leads_on = any(each.startswith(f"{path}/") for each in points)
            if not (leads_on and entry.is_dir(follow_symlinks=False)):
                return False
            below = os.open(entry.name, _READ, dir_fd=directory)
            try:
                same = os.fstat(below).st_dev == os.fstat(directory).st_dev
                if not (same and _bare(below, path, points)):
                    return False
            finally:
                os.close(below)
    return True


def _usual(entry: os.DirEntry[str], directory: int) -> bool:
    if entry.is_symlink():
        return LINKS.get(entry.name) == os.readlink(entry.name, dir_fd=directory)
    found = entry.stat(follow_symlinks=False)
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return stat.S_ISCHR(found.st_mode) and DEVICES.get(entry.name) == number


def changed(seen: Seen) -> bool:
    """Whether a tmpfs that was left out for being empty no longer is: asked while everything stands still."""
    points = frozenset(each.at for each in seen.layout.mounts)
    return not all(_is_bare(top, at, points) for at, top in seen.bare.items())


def has_connections(pid: int) -> bool:
    """Whether a TCP connection is established, or about to be, in the network namespace of the process.

    The lists are asked for last: to find one namespace's in everybody's takes the kernel milliseconds.
    """
    net = f"/proc/{pid}/net"
    return (_has_sockets(f"{net}/sockstat") and _connected(f"{net}/tcp")) or (
        _has_sockets(f"{net}/sockstat6") and _connected(f"{net}/tcp6")
    )


def _has_sockets(file: str) -> bool:
    """Whether any TCP socket listens or is connected; where that is not told, it may be so."""
    found = _IN_USE.search(read_text(file) or "")
    return found is None or found[1] != "0"


def _connected(file: str) -> bool:
    try:
        with open(file, encoding="ascii") as lines:
            next(lines, "")
            return any(line.split(maxsplit=4)[3] not in _QUIET for line in lines)
    except FileNotFoundError:
        return False
