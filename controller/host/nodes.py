"""The Nodes port: device nodes below /dev of running containers.

Each is a node in a tmpfs of its own, bound onto an empty file: so it may belong to anybody, opens in every user
namespace, and is known as masu's by the name of its tmpfs in the container's mount table.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from controller.errors import StepFailed
from controller.host import syscalls
from controller.host.device_directory import DEV, opened
from controller.host.mount_table import of_programs
from controller.host.mountinfo import mounts
from controller.host.new_mount import attach, new_mount
from controller.host.syscalls import CLONE_NEWNS, MS_REC, MS_SLAVE, MountAttr
from controller.host.text import failed, make_directories, read_text
from controller.host.visits import Trip, Visits
from controller.model.device import Node, NodeSeen
from controller.model.launch import NODES_MARK, Init

_KINDS: Final = {"b": stat.S_IFBLK, "c": stat.S_IFCHR}
_OUT_OF_REACH: Final = NodeSeen(
    ours=False,
    node=None,
    obstacle="a file system of a program (FUSE), which may never answer, is mounted there",
)


class DeviceNodes:
    """Thread-safe. `bundles`: a container that ever had nodes has a directory `nodes` in its bundle."""

    def __init__(self, bundles: str, visits: Visits) -> None:
        self._bundles, self._visits = bundles, visits

    def look(self, container: str, pid: int, places: Collection[str]) -> Mapping[str, NodeSeen] | None:
        """What is masu's, and whatever else is at `places`; None when the process has ended."""
        if not places and not os.path.isdir(self._directory(container)):
            return {}
        table = read_text(f"/proc/{pid}/mountinfo")
        if not table:
            return None
        ours, programs = _ours(table), of_programs(table)
        every = {*ours, *places}
        if programs & {"/", "/dev"}:
            return dict.fromkeys(every, _OUT_OF_REACH)
        hidden = {each for each in every - ours if f"{DEV}{each}" in programs}
        try:
            with opened(pid) as directory:
                seen = {each: directory.seen(each, ours=each in ours) for each in every - hidden}
                return {**seen, **dict.fromkeys(hidden, _OUT_OF_REACH)}
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            raise failed(error, "looking at", f"/proc/{pid}/root/dev") from error

    def put(self, container: str, init: Init, node: Node) -> None:
        """In the place of another node, if there is one. Raises StepFailed where something else is."""
        bundle = self._directory(container)
        make_directories(bundle)

        def work(trip: Trip) -> None:
            with opened(init.pid) as directory:
                directory.check(init)
                owner = directory.owner(node)
                with directory.empty_file(node.place) as target, _made(trip, bundle, node, owner) as tree:
                    trip.enter(init.pid, CLONE_NEWNS, init.start_time)
                    if not trip.abroad(CLONE_NEWNS):
                        raise StepFailed("refused: that is the host's /dev, not a container's")
                    syscalls.move_mount(tree, target)

        self._call(f"inside process {init.pid}: making node", node.place, work)

    def take(self, container: str, init: Init, place: str) -> None:
        """One that is gone is fine, and what is none stays."""
        del container

        def work(trip: Trip) -> None:
            del trip
            with opened(init.pid) as directory:
                directory.check(init)
                directory.clear(place)

        self._call(f"inside process {init.pid}: removing node", place, work)

    def _call(self, doing: str, place: str, work: Callable[[Trip], None]) -> None:
        path = f"{DEV}{place}"
        try:
            self._visits.call(f"{doing} {path}", work)
        except OSError as error:
            raise failed(error, doing, path) from error

    def _directory(self, container: str) -> str:
        return f"{self._bundles}/{container}/nodes"


def _ours(table: str) -> frozenset[str]:
    """Places below /dev where the topmost mount is a node of masu's."""
    ours: dict[str, bool] = {}
    for each in mounts(table):
        if each.target.startswith(DEV):
            ours[each.target.removeprefix(DEV)] = (each.kind, each.source) == ("tmpfs", NODES_MARK)
    return frozenset(place for place, is_ours in ours.items() if is_ours)


@contextlib.contextmanager
def _made(trip: Trip, bundle: str, node: Node, owner: tuple[int, int]) -> Iterator[int]:
    """A descriptor of the node as a mount that is attached nowhere.

    A part of a mount can be copied only where that is attached, so it is for a moment, out of everybody's sight.
    """
    with contextlib.ExitStack() as stack:
        whole = new_mount("tmpfs", [("source", NODES_MARK)], MountAttr.NOSUID | MountAttr.NOEXEC)
        stack.callback(os.close, whole)
        os.mknod("node", _KINDS[node.kind], os.makedev(node.major, node.minor), dir_fd=whole)
        os.chown("node", *owner, dir_fd=whole, follow_symlinks=False)
        os.chmod("node", node.mode, dir_fd=whole)
        trip.leave_for_new(CLONE_NEWNS)
        syscalls.mount("none", "/", MS_REC | MS_SLAVE)
        attach(whole, bundle)
        tree = syscalls.open_tree(f"{bundle}/node", recursive=False)
        stack.callback(os.close, tree)
        yield tree
