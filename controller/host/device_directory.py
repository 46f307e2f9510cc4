"""/dev of a running container, as masu may touch it: no symbolic link is followed, and no other mount entered.

Removing the file that a node is bound onto takes the mount away with it, in one step: that is so for whoever does
not see the mount himself (unlink(2), "mount detached since Linux 3.18").
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.proc_stat import stat_of
from controller.host.text import read_text
from controller.model.device import Node, NodeSeen
from controller.model.launch import Init
from controller.model.process import Extent, id_inside, id_outside, parse_extents

DEV: Final = "/dev/"
_NOTHING: Final = NodeSeen(ours=False, node=None)
_OBSTACLES: Final = {
    errno.ELOOP: "a symbolic link is on the way",
    errno.ENOTDIR: "a file is on the way",
    errno.EXDEV: "another file system is mounted on the way",
}
_NOBODY: Final = -1
_READABLE_DIRECTORY: Final = 0o755


@dataclass(frozen=True, slots=True)
class DeviceDirectory:
    """`descriptor` of the directory; `users` and `groups`: how the container counts them. Raises OSError."""

    pid: int
    descriptor: int
    users: tuple[Extent, ...]
    groups: tuple[Extent, ...]

    def check(self, init: Init) -> None:
        """Asked after it was opened: a process that is the right one now was that then, too."""
        found = stat_of(self.pid)
        if found is None or found.start_time != init.start_time:
            raise ProcessLookupError(errno.ESRCH, f"pid {self.pid} is another process by now")

    def owner(self, node: Node) -> tuple[int, int]:
        """User and group as the host counts them. Raises StepFailed."""
        user, group = id_outside(self.users, node.user), id_outside(self.groups, node.group)
        if user is None or group is None:
            raise StepFailed(
                f"there is no user {node.user}:{node.group} in the container", errno=errno.EINVAL
            )
        return user, group

    def seen(self, place: str, *, ours: bool) -> NodeSeen:
        try:
            with self._parent(place) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return _NOTHING
        except OSError as error:
            if error.errno not in _OBSTACLES:
                raise
            return NodeSeen(ours=False, node=None, obstacle=_OBSTACLES[error.errno])
        if _is_node(found):
            return NodeSeen(ours, self._node(place, found))
        return NodeSeen(ours=False, node=None, obstacle=_obstacle(found))

    @contextlib.contextmanager
    def empty_file(self, place: str) -> Iterator[int]:
        """A descriptor of a new one, with the directories above it. Raises StepFailed where something else is."""
        self._make_parents(place)
        with self._parent(place) as (parent, name):
            with self._as_its_root():
                obstacle = _removed(parent, name)
                if obstacle:
                    raise StepFailed(f"{DEV}{place}: {obstacle}", errno=errno.EEXIST)
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0, dir_fd=parent))
            target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                yield target
            finally:
                os.close(target)

    def clear(self, place: str) -> None:
        """Remove a node and what is mounted there; what is none stays, and one that is gone is fine."""
        with (
            contextlib.suppress(FileNotFoundError),
            self._parent(place) as (parent, name),
            self._as_its_root(),
        ):
            _removed(parent, name)

    def _node(self, place: str, found: os.stat_result) -> Node:
        user, group = id_inside(self.users, found.st_uid), id_inside(self.groups, found.st_gid)
        return Node(
            place,
            "b" if stat.S_ISBLK(found.st_mode) else "c",
            os.major(found.st_rdev),
            os.minor(found.st_rdev),
            stat.S_IMODE(found.st_mode),
            _NOBODY if user is None else user,
            _NOBODY if group is None else group,
        )

    @contextlib.contextmanager
    def _parent(self, place: str) -> Iterator[tuple[int, str]]:
        above, _, name = place.rpartition("/")
        parent = syscalls.open_plain(self.descriptor, above or ".", across=False)
        try:
            yield parent, name
        finally:
            os.close(parent)

    def _make_parents(self, place: str) -> None:
        """Made with the mode they are to have, which masu's umask allows: chmod(2) by name, a moment later, would
        follow a link that the container has put there meanwhile, to any file of the host.
        """
        parts = place.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            with (
                self._parent("/".join(parts[:depth])) as (parent, name),
                self._as_its_root(),
                contextlib.suppress(FileExistsError),
            ):
                os.mkdir(name, _READABLE_DIRECTORY, dir_fd=parent)

    @contextlib.contextmanager
    def _as_its_root(self) -> Iterator[None]:
        """The file system may be the user namespace's own, where nobody else can own a file."""
        user, group = id_outside(self.users, 0), id_outside(self.groups, 0)
        syscalls.set_file_owner(user or 0, group or 0)
        try:
            yield
        finally:
            syscalls.set_file_owner(0, 0)


@contextlib.contextmanager
def opened(pid: int) -> Iterator[DeviceDirectory]:
    """Raises OSError: FileNotFoundError or ProcessLookupError when the process has ended, or has no /dev."""
    with contextlib.ExitStack() as stack:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        directory = syscalls.open_plain(root, "dev", across=True)
        stack.callback(os.close, directory)
        if os.path.samestat(os.fstat(directory), os.stat(DEV)):
            raise StepFailed("refused: /dev of the container is the host's own", path=DEV)
        users, groups = (parse_extents(read_text(f"/proc/{pid}/{kind}_map") or "") for kind in ("uid", "gid"))
        yield DeviceDirectory(pid, directory, users, groups)


def _removed(parent: int, name: str) -> str:
    """Empty: nothing is there any more; else what is, and stays."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        obstacle = "" if _is_node(found) else _obstacle(found)
        if not obstacle:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return ""
    return obstacle


def _is_node(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)


def _obstacle(found: os.stat_result) -> str:
    """An empty file is none: it is what a node is bound onto, and left over where that was interrupted."""
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        return ""
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    return f"a {kind} of the container's own is there"
