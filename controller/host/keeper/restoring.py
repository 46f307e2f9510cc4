"""What a restore needs besides a launch: mounts ready for CRIU to take, and the container's network and cgroups.

Loaded by the forked child alone, and only when there is something of it to do. A keeper that is older does not know
these operations and ends the launch: nothing is restored in a wrong place.
"""

from __future__ import annotations

import errno
import os
import stat

import launching

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from typing import Any

CLONE_NEWCGROUP = 0x02000000
MS_REMOUNT, MS_REC, MS_BIND = 0x20, 0x4000, 0x1000
FLAGS = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "relatime": 0x200000,
    "strictatime": 0x1000000,
}
FEATURE_CACHE = "/run/criu.kdat"
AROUND = "/run/masu"


def scratch(operation: dict[str, Any]) -> None:
    """A small file system of the launch's own, in which everything else is put together."""
    launching.mount("tmpfs", operation["target"], "tmpfs", FLAGS["nosuid"], "mode=711,size=1m")


def stage(operation: dict[str, Any]) -> None:
    """Show what is `below` a `source` at `target` with `flags`; no source: an empty directory."""
    source, target = operation["source"], operation["target"]
    if source:
        found = _opened(source, operation["below"])
        source = f"/proc/self/fd/{found}"
    if source and not os.path.isdir(source):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    else:
        os.mkdir(target, 0o755)
    launching.mount(source or target, target, None, MS_BIND, "")
    if source:
        os.close(found)
    _set_flags(target, operation["flags"])


def _opened(source: str, below: str) -> int:
    """A descriptor. The host's administrator has named the source; below it a container may have put links."""
    found = os.open(source, os.O_PATH | os.O_CLOEXEC)
    for name in filter(None, below.split("/")):
        above = found
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        os.close(above)
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), f"{source}{below}")
    return found


def _set_flags(target: str, names: list[str]) -> None:
    flags = 0
    for name in names:
        flags |= FLAGS[name]
    if flags:
        launching.mount("none", target, None, MS_REMOUNT | MS_BIND | flags, "")


def fresh(operation: dict[str, Any]) -> None:
    """A tmpfs with nothing in it but what other mounts are put on, and in /dev the devices that everybody has."""
    target, owner = operation["target"], operation["owner"]
    os.mkdir(target, 0o755)
    previous = os.umask(0)
    launching.mount("tmpfs", target, "tmpfs", _all(operation["flags"]) & ~FLAGS["ro"], operation["data"])
    for name, (major, minor) in operation["devices"].items():
        os.mknod(f"{target}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chown(f"{target}/{name}", *owner)
    for name, text in operation["links"].items():
        os.symlink(text, f"{target}/{name}")
        os.lchown(f"{target}/{name}", *owner)
    os.umask(0o022)
    for name, is_directory in operation["holes"]:
        _hole(f"{target}/{name}", is_directory, owner)
    os.umask(previous)
    if "ro" in operation["flags"]:
        launching.mount("none", target, None, MS_REMOUNT | MS_BIND | _all(operation["flags"]), "")


def _hole(path: str, is_directory: bool, owner: list[int]) -> None:
    """What something else is mounted on."""
    if os.path.lexists(path):
        return
    os.makedirs(path if is_directory else os.path.dirname(path), 0o755, exist_ok=True)
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    os.chown(path, *owner)


def _all(names: list[str]) -> int:
    flags = 0
    for name in names:
        flags |= FLAGS[name]
    return flags


def system(operation: dict[str, Any]) -> None:
    """A sysfs of the container's network namespace."""
    os.mkdir(operation["target"], 0o755)
    launching.MOUNTS["sys"](operation)
    _set_flags(operation["target"], operation["flags"])


def network(operation: dict[str, Any]) -> None:
    """Enter the network namespace that the container is to be in: CRIU then leaves it alone."""
    there = os.open(operation["source"], os.O_RDONLY | os.O_CLOEXEC)
    launching.check(launching.LIBC.setns(there, launching.CLONE_NEWNET))
    os.close(there)


def cgroups(operation: dict[str, Any]) -> None:
    """The groups that were joined become the roots that the container sees."""
    del operation
    launching.check(launching.LIBC.unshare(CLONE_NEWCGROUP))


def features(operation: dict[str, Any]) -> None:
    """Give CRIU back what it found out about this kernel: it looks for that on /run alone.

    On a host whose /run is no tmpfs, CRIU sees another /run, in which there is this and masu's own directory.
    """
    around = os.open(AROUND, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with open(operation["source"], "rb") as file:
        known = file.read()
    launching.mount("tmpfs", "/run", "tmpfs", 0, "mode=755,size=1m")
    os.mkdir(AROUND, 0o711)
    launching.mount(f"/proc/self/fd/{around}", AROUND, None, MS_BIND | MS_REC, "")
    os.close(around)
    with open(FEATURE_CACHE, "wb") as file:
        file.write(known)


OPERATIONS = {
    "scratch": scratch,
    "stage": stage,
    "fresh": fresh,
    "system": system,
    "network": network,
    "cgroups": cgroups,
    "features": features,
}
