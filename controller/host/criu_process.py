"""One run of `criu swrk`: started, asked, answered and ended. It knows nothing of containers but their freezer."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from typing import Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import criu_rpc
from controller.host.criu_ended import Notes, kill, stop
from controller.host.criu_features import last_error
from controller.host.criu_mended import Ice
from controller.host.criu_stuck import Stuck, Watch
from controller.host.departure import depart
from controller.host.facts import find
from controller.host.text import remove_file
from controller.model.dump import PRE_DUMP, DumpOrder

END_TIMEOUT_S: Final = 5.0
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOG_LEVEL: Final = 2
"""Warnings and errors: more takes time while everything stands still."""
_LOG: Final = "dump.log"

Options = list[tuple[str, criu_rpc.Value]]


class Killed(Exception):
    """CRIU did not end as it should; the container may have to be mended and thawed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One dump or pre-dump by the program `criu`; `cache`: see `depart`; `notes`: where it is written down."""

    criu: str
    cache: bytes | None
    order: DumpOrder
    ice: Ice
    notes: Notes

    def talk(self, kind: int, options: Options, frozen: Callable[[], None]) -> bool:
        """Start it in the container's network namespace, ask it, wait for it. → whether the container was thawed,
        which somebody else had frozen.

        `frozen` is called by this very thread. Raises StepFailed, Killed, OSError, and what `frozen` raises.
        """
        watch = Watch(self.order.init, self.ice, thaws=kind == criu_rpc.DUMP)

        def complete() -> None:
            frozen()
            watch.awaits_end = self.order.kill

        directory = os.open(self.order.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_file(f"{self.order.directory}/{_LOG}")
            answer = self._ask(criu_rpc.request(kind, [*self._always(directory), *options]), complete, watch)
        finally:
            os.close(directory)
        if answer.failure is not None:
            raise answer.failure
        if not answer.success:
            said = self._said() or answer.message or "it does not say why"
            raise StepFailed(f"criu could not dump {self.order.container}: {said}", path=self.order.directory)
        return watch.thawed

    def _ask(self, asked: bytes, frozen: Callable[[], None], watch: Watch) -> criu_rpc.Answer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            process = self._start(theirs.fileno())
            theirs.close()
            try:
                self.notes.write(process.pid, self.order.init)
                timeout_s = self.order.timeout_ms / 1000
                return criu_rpc.converse(ours, asked, timeout_s, frozen, watch.look)
            except (TimeoutError, criu_rpc.Broken, Stuck) as error:
                ours.close()  # should it be waiting for a word just now
                self._stop(process, error)
                raise Killed(": ".join(each for each in (self._why(error), self._said()) if each)) from error
            except BaseException:  # Ctrl-C: nobody will give it a word any more
                ours.close()
                self._stop(process, None)
                raise
            finally:
                _end(process)
                self.notes.remove()

    def _why(self, error: Exception) -> str:
        if isinstance(error, Stuck):
            return f"{self.order.container} could not be dumped: {error}"
        late = f"did not finish within {self.order.timeout_ms} ms"
        return f"criu {late if isinstance(error, TimeoutError) else f'broke off: {error}'}"

    def _stop(self, process: subprocess.Popen[bytes], error: Exception | None) -> None:
        if isinstance(error, Stuck) and error.ended:
            kill(process.pid)
            return
        if isinstance(error, Stuck):
            self.ice.release()  # it undoes everything by itself, if its processes run
        stop(process.pid, lambda wait_s: _ends(process, wait_s), self.ice)

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


def _ends(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if not _ends(process, END_TIMEOUT_S):
        kill(process.pid)
        process.wait()
