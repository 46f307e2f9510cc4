"""One run of `criu swrk`: started, asked, answered and ended. It knows nothing of containers but their freezer."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import criu_rpc
from controller.host.criu_features import last_error
from controller.host.criu_mended import Ice
from controller.host.departure import depart
from controller.host.facts import find
from controller.host.text import read_text, remove_file
from controller.model.dump import PRE_DUMP, DumpOrder

END_TIMEOUT_S: Final = 5.0
UNDO_S: Final = 2.0
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOG_LEVEL: Final = 2
"""Warnings and errors: more takes time while everything stands still."""
_LOG: Final = "dump.log"

Options = list[tuple[str, criu_rpc.Value]]


class Killed(Exception):
    """CRIU did not end as it should; the container may have to be mended and thawed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One dump or pre-dump by the program `criu`; `cache`: see `depart`."""

    criu: str
    cache: bytes | None
    order: DumpOrder
    ice: Ice

    def talk(self, kind: int, options: Options, frozen: Callable[[], None]) -> None:
        """Start it in the container's network namespace, ask it, wait for it.

        `frozen` is called by this very thread. Raises StepFailed, Killed, OSError, and what `frozen` raises.
        """
        directory = os.open(self.order.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_file(f"{self.order.directory}/{_LOG}")
            answer = self._ask(criu_rpc.request(kind, [*self._always(directory), *options]), frozen)
        finally:
            os.close(directory)
        if answer.failure is not None:
            raise answer.failure
        if not answer.success:
            said = self._said() or answer.message or "it does not say why"
            raise StepFailed(f"criu could not dump {self.order.container}: {said}", path=self.order.directory)

    def _ask(self, asked: bytes, frozen: Callable[[], None]) -> criu_rpc.Answer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            process = self._start(theirs.fileno())
            theirs.close()
            try:
                return criu_rpc.converse(ours, asked, self.order.timeout_ms / 1000, frozen)
            except (TimeoutError, criu_rpc.Broken) as error:
                ours.close()  # should it be waiting for a word just now
                _stop(process, self.ice)
                late = f"did not finish within {self.order.timeout_ms} ms"
                why = late if isinstance(error, TimeoutError) else f"broke off: {error}"
                raise Killed(": ".join(each for each in (f"criu {why}", self._said()) if each)) from error
            except BaseException:  # Ctrl-C: nobody will give it a word any more
                ours.close()
                _stop(process, self.ice)
                raise
            finally:
                _end(process)

    def _start(self, descriptor: int) -> subprocess.Popen[bytes]:
        pid = self.order.init.pid
        argv = [*_in_time_of(pid), self.criu, "swrk", str(descriptor)]
        return depart(f"/proc/{pid}/ns/net", self.cache, lambda: _start(argv, descriptor))

    def _said(self) -> str:
        return last_error(f"{self.order.directory}/{_LOG}")

    def _always(self, directory: int) -> Options:
        order = self.order
        parent: Options = [("parent_img", PRE_DUMP), ("track_mem", 1)] if order.resumes else []
        return [
            ("images_dir_fd", directory),
            ("pid", order.init.pid),
            ("log_file", _LOG),
            ("log_level", LOG_LEVEL),
            ("manage_cgroups_mode", criu_rpc.IGNORE_CGROUPS),
            ("timeout", max(1, order.timeout_ms // 1000)),
            *parent,
        ]


def _start(argv: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        start_new_session=True,
        umask=0o077,
        env={"PATH": SEARCH_PATH, "GZIP": "-1"},  # it has tar compress a tmpfs while everything stands still
        restore_signals=False,  # SIGXFSZ and SIGPIPE stay ignored: what CRIU cannot write is an error to it
    )


def _in_time_of(pid: int) -> list[str]:
    """CRIU asks that every namespace belongs to the container's own user namespace, which masu's time namespaces do
    not; it leaves alone the one that it is in itself, and keeps what the clocks say there.

    By a program, because a process with threads cannot enter a time namespace: setns(2).
    """
    theirs = f"/proc/{pid}/ns/time"
    if not os.path.exists(theirs) or os.path.samefile(theirs, "/proc/self/ns/time"):
        return []
    return [find("nsenter") or "nsenter", f"--time={theirs}", "--"]


def _stop(process: subprocess.Popen[bytes], ice: Ice) -> None:
    """Have it give up: its next write to an image fails, and it undoes everything itself.

    Only if that takes too long it is killed: in its first moments that can end the container, because a thread that
    CRIU has made call something comes back to a breakpoint, and nobody waits for it.
    """
    for pid in (process.pid, *_children(process.pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    try:
        process.wait(UNDO_S)
    except subprocess.TimeoutExpired:
        ice.freeze()
        _kill(process)


def _children(pid: int) -> Iterator[int]:
    """A pre-dump is made by one."""
    yield from map(int, (read_text(f"/proc/{pid}/task/{pid}/children") or "").split())


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With what it has started; it is the leader of its group as long as it is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()
