"""A thread that leaves masu's namespaces for one piece of work and never comes back.

For work that starts programs: they are born where the thread is. See `visits` for work that returns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from controller.host import syscalls
from controller.host.new_mount import attach, new_mount
from controller.host.syscalls import CLONE_FS, CLONE_NEWNET, CLONE_NEWNS

T = TypeVar("T")

FEATURE_CACHE: Final = "/run/criu.kdat"
_TMPFS_MAGIC: Final = 0x01021994


def depart(network: str, run_file: bytes | None, work: Callable[[], T]) -> T:
    """The result of `work`, done by a thread of its own in the network namespace `network`, "" for masu's.

    `run_file`: not None: it sees a /run of its own with nothing but CRIU's cache in it, which is this, or missing
    where it is empty. Raises what the work raises, OSError when the thread cannot leave.
    """
    ended: list[tuple[Any, BaseException | None]] = []

    def leave() -> None:
        try:
            if network:
                _enter(network)
            if run_file is not None:
                _hide_run(run_file)
            ended.append((work(), None))
        except BaseException as error:  # noqa: BLE001  the caller gets it, whatever it is
            ended.append((None, error))

    thread = threading.Thread(target=leave, name="masu-criu", daemon=True)
    thread.start()
    thread.join()
    result, failure = ended[0]
    if failure is not None:
        raise failure
    value: T = result
    return value


def _enter(network: str) -> None:
    descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


def _hide_run(run_file: bytes) -> None:
    syscalls.unshare(CLONE_FS | CLONE_NEWNS)
    syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_SLAVE)
    tree = new_mount("tmpfs", ())
    try:
        attach(tree, "/run")
    finally:
        os.close(tree)
    if run_file:
        with open(FEATURE_CACHE, "wb") as file:
            file.write(run_file)


def is_on_tmpfs(path: str) -> bool:
    """As CRIU asks it before it keeps its cache: statfs(2)."""
    return syscalls.statfs_type(path) == _TMPFS_MAGIC
