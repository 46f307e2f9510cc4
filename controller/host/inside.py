"""Looking and touching from within a container's namespaces, without starting a process there.

Changes nothing in a namespace that is masu's own: what is the host's is not a container's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from controller.errors import StepFailed
from controller.host import loopback, mount_table, syscalls
from controller.host.live_mount import change_options, detached, put, take_away
from controller.host.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS
from controller.host.text import failed, read_text
from controller.host.visits import NAMESPACE_NAMES, Trip, Visits
from controller.model.launch import Init
from controller.model.process import MountSeen
from controller.model.sysctl import sysctl_path

T = TypeVar("T")

_IPC_KEYS: Final = frozenset(
    {"sem", "msgmax", "msgmnb", "msgmni", "shmall", "shmmax", "shmmni", "shm_rmid_forced"}
    | {"auto_msgmni", "msg_next_id", "sem_next_id", "shm_next_id"},
)
_UTS_KEYS: Final = frozenset({"hostname", "domainname"})

_LOOPBACK_V6: Final = "00000000000000000000000000000001"


class NamespaceInside:
    """The driver of `Inside`. Looking at a process that has ended gives None; changing it is StepFailed.

    Other failures of the kernel, and no answer within five seconds, are StepFailed in both.
    """

    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def hostname(self, pid: int) -> str | None:
        def work(trip: Trip) -> str:
            trip.enter(pid, CLONE_NEWUTS)
            return os.uname().nodename

        return self._look(pid, "hostname", work)

    def set_hostname(self, init: Init, name: str) -> None:
        def work(trip: Trip) -> None:
            _enter_foreign(trip, init, CLONE_NEWUTS)
            syscalls.sethostname(name)

        self._change(init, f"setting hostname {name!r}", "uts namespace", work)

    def sysctl(self, pid: int, key: str) -> str | None:
        """The value with single spaces; of keys outside the net, ipc and uts namespaces it is the host's."""
        path, kind = sysctl_path(key), namespace_of(key)

        def work(trip: Trip) -> str | None:
            # Our own /proc serves: these keys follow the reader's namespaces, not the mount (proc_sysctl.c).
            trip.enter(pid, kind or CLONE_NEWUTS)
            return read_text(path) if path else None

        text = self._look(pid, key, work)
        return None if text is None else " ".join(text.split())

    def set_sysctl(self, init: Init, key: str, value: str) -> None:
        path, kind = sysctl_path(key), namespace_of(key)
        if path is None or kind is None:
            raise StepFailed(f"setting sysctl {key}: not a key of the net, ipc or uts namespace")

        def work(trip: Trip) -> None:
            _enter_foreign(trip, init, kind)
            with _as_owner(path) if kind == CLONE_NEWIPC else contextlib.nullcontext():
                _write(path, value)

        self._change(init, f"writing {value!r}", path, work)

    def loopback_up(self, pid: int) -> bool | None:
        """::1 is there only while lo is up (net/ipv6/addrconf.c flushes it); else lo itself is asked."""
        if _LOOPBACK_V6 in (read_text(f"/proc/{pid}/net/if_inet6") or ""):
            return True

        def work(trip: Trip) -> bool:
            trip.enter(pid, CLONE_NEWNET)
            return loopback.is_up()

        return self._look(pid, "loopback", work)

    def raise_loopback(self, init: Init) -> None:
        def work(trip: Trip) -> None:
            _enter_foreign(trip, init, CLONE_NEWNET)
            loopback.set_up()

        self._change(init, "setting up", "lo", work)

    def mount(self, init: Init, mount: Mapping[str, Any]) -> None:
        """Goes above whatever is mounted there already; the destination must exist. See `live_mount`."""

        def work(trip: Trip) -> None:
            with detached(init.pid, mount) as tree:
                put(trip, init, tree, mount["destination"])

        self._change(init, "mounting on", mount["destination"], work)

    def mounts(self, pid: int, wanted: Mapping[str, str]) -> Mapping[str, MountSeen] | None:
        return mount_table.look(pid, wanted)

    def unmount(self, init: Init, target: str) -> None:
        self._change(init, "unmounting", target, lambda trip: take_away(trip, init, target))

    def set_mount_options(self, init: Init, mount: Mapping[str, Any]) -> None:
        doing = f"setting {','.join(mount.get('options', ()))} on"
        self._change(init, doing, mount["destination"], lambda trip: change_options(trip, init, mount))

    def _look(self, pid: int, what: str, work: Callable[[Trip], T]) -> T | None:
        doing = f"inside process {pid}: reading"
        try:
            return self._visits.call(f"{doing} {what}", work)
        except ProcessLookupError:
            return None
        except OSError as error:
            raise failed(error, doing, what) from error

    def _change(self, init: Init, doing: str, path: str, work: Callable[[Trip], None]) -> None:
        doing = f"inside process {init.pid}: {doing}"
        try:
            self._visits.call(f"{doing} {path}", work)
        except OSError as error:
            raise failed(error, doing, path) from error


def namespace_of(key: str) -> int | None:
    """Pure. The namespace that holds a sysctl, or None for one of the whole host."""
    match (sysctl_path(key) or "").split("/")[3:]:
        case ["net", _, *_]:
            return CLONE_NEWNET
        case ["fs", "mqueue", _]:
            return CLONE_NEWIPC
        case ["kernel", name] if name in _IPC_KEYS:
            return CLONE_NEWIPC
        case ["kernel", name] if name in _UTS_KEYS:
            return CLONE_NEWUTS
    return None


def _enter_foreign(trip: Trip, init: Init, kind: int) -> None:
    trip.enter(init.pid, kind, init.start_time)
    _refuse_own(trip, kind)


def _refuse_own(trip: Trip, kind: int) -> None:
    if not trip.abroad(kind):
        raise StepFailed(f"refused: the {NAMESPACE_NAMES[kind]} namespace is the host's, not the container's")


@contextlib.contextmanager
def _as_owner(path: str) -> Iterator[None]:
    """Those of ipc are for their user namespace's root alone (ipc/ipc_sysctl.c); others ask for a capability."""
    syscalls.seteuid(os.stat(path).st_uid)
    try:
        yield
    finally:
        syscalls.seteuid(0)


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"{value}\n".encode())
    finally:
        os.close(descriptor)
