"""One mount of a running container put there, taken away or changed.

It is prepared in masu's mount namespace and attached in the container's. No directory is made: a missing
destination is an error. Mount flags are not locked: a container that holds CAP_SYS_ADMIN can change them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.mount_table import Table, path_inside
from controller.host.new_mount import MountRefused, new_mount
from controller.host.syscalls import CLONE_NEWNS, AttrChange, MountAttr
from controller.host.text import failed
from controller.host.visits import Trip
from controller.model.launch import Init

_NOTHING: Final = MountAttr(0)
_SETS: Final = {
    "ro": MountAttr.RDONLY,
    "nosuid": MountAttr.NOSUID,
    "nodev": MountAttr.NODEV,
    "noexec": MountAttr.NOEXEC,
    "nosymfollow": MountAttr.NOSYMFOLLOW,
    "noatime": MountAttr.NOATIME,
    "strictatime": MountAttr.STRICTATIME,
    "relatime": _NOTHING,
    "nodiratime": MountAttr.NODIRATIME,
}
_CLEARS: Final = {
    "rw": MountAttr.RDONLY,
    "suid": MountAttr.NOSUID,
    "dev": MountAttr.NODEV,
    "exec": MountAttr.NOEXEC,
    "symfollow": MountAttr.NOSYMFOLLOW,
    "diratime": MountAttr.NODIRATIME,
    "noatime": MountAttr.ATIME,
    "strictatime": MountAttr.ATIME,
    "relatime": MountAttr.ATIME,
}
_RECURSIVE: Final = frozenset(f"r{name}" for name in (*_SETS, *_CLEARS))
_SILENT: Final = frozenset({"bind", "rbind", "private", "rprivate", "defaults"})


@dataclass(frozen=True, slots=True)
class Options:
    """A mount's options in three heaps; `rest` is for the file system itself."""

    own: AttrChange
    below: AttrChange
    rest: tuple[str, ...]


def sorted_options(options: Sequence[str]) -> Options:
    """Pure. "ro" is for the mount itself, "rro" also for the mounts below it (OCI config.md, Mounts)."""
    own = [each for each in options if each in _SETS or each in _CLEARS]
    below = [each[1:] for each in options if each in _RECURSIVE]
    known = {*own, *_RECURSIVE, *_SILENT}
    return Options(_change(own), _change(below), tuple(each for each in options if each not in known))


def _change(names: Sequence[str]) -> AttrChange:
    """Pure. What the names ask for; the last of two that contradict each other wins, as in mount(8)."""
    raised = cleared = _NOTHING
    for name in names:
        clears, sets = _CLEARS.get(name, _NOTHING), _SETS.get(name, _NOTHING)
        raised = (raised & ~clears) | sets
        cleared = (cleared & ~sets) | clears
    # The access-time field is replaced whole: mount_setattr(2) wants all of its mask cleared to set it.
    if raised & MountAttr.ATIME:
        cleared |= MountAttr.ATIME
    return AttrChange(raised, cleared)


@contextlib.contextmanager
def detached(pid: int, mount: Mapping[str, Any]) -> Iterator[int]:
    """A descriptor of the mount, attached nowhere yet; it vanishes on leaving unless it was put somewhere."""
    options = sorted_options(mount.get("options", ()))
    if mount.get("type") == "tmpfs":
        tree = _tmpfs(pid, mount, options.rest)
    elif mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options", ())):
        tree = _bind(pid, mount, options)
    else:
        raise StepFailed(f"a mount of type {mount.get('type')!r} cannot be added to a running container")
    try:
        syscalls.make_private(tree)
        _apply(tree, options)
        yield tree
    finally:
        os.close(tree)


def _apply(tree: int, options: Options) -> None:
    for change, recursive in ((options.below, True), (options.own, False)):
        if change.raised | change.cleared:
            syscalls.mount_setattr(tree, change, recursive=recursive)


def _bind(pid: int, mount: Mapping[str, Any], options: Options) -> int:
    if options.rest:
        raise StepFailed(f"bind mount on {mount['destination']}: options {', '.join(options.rest)} unknown")
    recursive = "rbind" in mount.get("options", ())
    try:
        tree = syscalls.open_tree(mount["source"], recursive=recursive)
        try:
            if "volume" in mount:
                _map_owners(tree, pid)
        except OSError:
            os.close(tree)
            raise
    except OSError as error:
        doing = f"inside process {pid}: mounting on {mount['destination']}: source"
        raise failed(error, doing, mount["source"]) from error
    return tree


def _map_owners(tree: int, pid: int) -> None:
    """As the launch does it: files of a volume have the owners that containers see."""
    users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.path.samestat(os.fstat(users), os.stat("/proc/self/ns/user")):
            syscalls.map_owners(tree, users)
    finally:
        os.close(users)


def _tmpfs(pid: int, mount: Mapping[str, Any], rest: Sequence[str]) -> int:
    try:
        return new_mount("tmpfs", [("source", mount.get("source") or "tmpfs"), *_tmpfs_settings(pid, rest)])
    except MountRefused as error:
        doing = f"inside process {pid}: making a tmpfs ({error.said or ', '.join(rest)}) for"
        raise failed(error, doing, mount["destination"]) from error


def _tmpfs_settings(pid: int, rest: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options, with owners as the container counts them: the file system itself is made outside."""
    owners = {"uid": "0", "gid": "0"}
    for option in rest:
        key, equals, value = option.partition("=")
        if key in owners:
            owners[key] = value
        else:
            yield key, value if equals else None
    for key, value in owners.items():
        yield key, str(_outside(pid, key, int(value))) if value.isdecimal() else value


def _outside(pid: int, kind: str, inside: int) -> int:
    """The host's id for an id of the process's user namespace; user_namespaces(7), "uid_map"."""
    with open(f"/proc/{pid}/{kind}_map", encoding="ascii") as lines:
        for line in lines:
            first, outer, size = map(int, line.split())
            if first <= inside < first + size:
                return outer + inside - first
    raise StepFailed(
        f"inside process {pid}: {kind} {inside} does not exist in the container", errno=errno.EINVAL
    )


def put(trip: Trip, init: Init, tree: int, destination: str) -> None:
    """Attach a mount in the process's mount namespace, on what `destination` means to the process."""
    with _there(trip, init, destination) as (target, _):
        syscalls.move_mount(tree, target)


def take_away(trip: Trip, init: Init, destination: str) -> None:
    """Detach the topmost mount at the destination, with all that is below it; none there is fine."""
    with _there(trip, init, destination) as (_, path):
        try:
            syscalls.detach_mount(path)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise


def change_options(trip: Trip, init: Init, mount: Mapping[str, Any]) -> None:
    """What is mounted at the destination gets the mount's options; those of the file system are left."""
    with _there(trip, init, mount["destination"]) as (target, _):
        _apply(target, sorted_options(mount.get("options", ())))


@contextlib.contextmanager
def _there(trip: Trip, init: Init, destination: str) -> Iterator[tuple[int, str]]:
    """In the process's mount namespace: what `destination` means to the process, as a descriptor and a path."""
    root = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = Table(init.pid).open(root, destination)
    except BlockingIOError as error:
        raise StepFailed(
            f"{destination} of process {init.pid} is on the file system of a program of its own (FUSE), which may"
            " never answer"
        ) from error
    finally:
        os.close(root)
    try:
        path = path_inside(target)  # before entering: the container's own /proc does not know this thread
        trip.enter(init.pid, CLONE_NEWNS, init.start_time)
        if not trip.abroad(CLONE_NEWNS):
            raise StepFailed(f"refused: mounting on {destination} of the host, not of a container")
        yield target, path
    finally:
        os.close(target)
