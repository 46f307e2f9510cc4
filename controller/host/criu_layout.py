"""Looks at a running container before a dump: its mounts, its log pipes, its connections. Read-only."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.criu_mounts import DEVICES, LINKS, held, parse_mountinfo
from controller.host.mount_table import path_inside
from controller.host.text import read_text
from controller.model.dump import Layout

_QUIET: Final = frozenset({"0A", "06", "07"})
"""LISTEN, TIME_WAIT and CLOSE in /proc/net/tcp: nothing of them has to stand still during a dump."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`bare`: where a tmpfs with nothing in it is, which the images therefore will not have."""

    layout: Layout
    bare: tuple[str, ...]


def observe(pid: int, config: Mapping[str, Any], pipes_file: str, *, keep_all: bool) -> Seen:
    """`keep_all`: no tmpfs counts as empty. Raises StepFailed when the process is gone."""
    text = read_text(f"/proc/{pid}/mountinfo")
    if not text:
        raise StepFailed(f"process {pid} has ended")
    lines = parse_mountinfo(text)
    points = frozenset(each.at for each in lines)
    outside = parse_mountinfo(read_text("/proc/self/mountinfo") or "")
    candidates = () if keep_all else (each.at for each in lines if each.kind == "tmpfs")
    bare = frozenset(at for at in candidates if is_bare(pid, at, points))
    found = held(
        lines,
        (each.device for each in outside),
        _targets(pid, config),
        bare,
        lambda at: os.path.isdir(f"/proc/{pid}/root{at}"),
    )
    pipes = json.loads(read_text(pipes_file) or "{}").get("pipes", ())
    left_out = tuple(each.at for each in found if each.external and each.at in bare)
    return Seen(Layout(found, tuple(pipes)), left_out)


def _targets(pid: int, config: Mapping[str, Any]) -> dict[str, str]:
    """Where each mount of the bundle config really is, links followed → what the config calls it."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {}
        for each in config["mounts"]:
            at = _resolved(root, each["destination"])
            found[at] = each["destination"]
        return found
    finally:
        os.close(root)


def _resolved(root: int, path: str) -> str:
    try:
        descriptor = syscalls.open_below(root, path)
    except OSError:
        return path
    try:
        return path_inside(descriptor)
    finally:
        os.close(descriptor)


def is_bare(pid: int, at: str, points: frozenset[str]) -> bool:
    """Whether a tmpfs holds nothing but what is mounted on it, and in /dev the usual devices."""
    try:
        return _bare(f"/proc/{pid}/root", at, points)
    except OSError:
        return False


def _bare(root: str, at: str, points: frozenset[str]) -> bool:
    with os.scandir(root + at) as entries:
        for entry in entries:
            path = f"{at}/{entry.name}"
            if path in points or (at == "/dev" and _usual(entry)):
                continue
            leads_on = any(each.startswith(f"{path}/") for each in points)
            if not (leads_on and entry.is_dir(follow_symlinks=False) and _bare(root, path, points)):
                return False
    return True


def _usual(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return LINKS.get(entry.name) == os.readlink(entry.path)
    found = entry.stat(follow_symlinks=False)
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return stat.S_ISCHR(found.st_mode) and DEVICES.get(entry.name) == number


def changed(pid: int, seen: Seen) -> bool:
    """Whether a tmpfs that was left out for being empty no longer is: asked while everything stands still."""
    points = frozenset(each.at for each in seen.layout.mounts)
    return not all(is_bare(pid, at, points) for at in seen.bare)


def has_connections(pid: int) -> bool:
    """Whether a TCP connection is established, or about to be, in the network namespace of the process."""
    for file in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{file}", encoding="ascii") as lines:
                next(lines, "")
                if any(line.split(maxsplit=4)[3] not in _QUIET for line in lines):
                    return True
        except FileNotFoundError:
            continue
    return False
