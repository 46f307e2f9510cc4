"""Launches under way: a forked child that becomes the runtime, until it has ended and said init's pid."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time

import proc
from containers import Containers
from launching import become_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Callable
    from typing import Any

    Answer = Callable[..., None]

PIPE_BYTES = 256 * 1024
F_SETPIPE_SZ = 1031


class Launch:
    """One call of the runtime: its process, the read ends of its three pipes, and who waits for it."""

    def __init__(
        self, request: dict[str, Any], answer: Answer, report: int, stdout: int, stderr: int
    ) -> None:
        self.request, self.answer = request, answer
        self.report, self.stdout, self.stderr = report, stdout, stderr
        self.deadline = time.monotonic() + request["timeout_ms"] / 1000
        self.expired = False


class Launches:
    """Any number at once; nothing here waits."""

    def __init__(self, containers: Containers, open_files: int) -> None:
        """`open_files`: the soft limit that containers start with."""
        self._containers, self._open_files = containers, open_files
        self._running: dict[int, Launch] = {}

    @property
    def pending(self) -> bool:
        return bool(self._running)

    def start(self, request: dict[str, Any], answer: Answer) -> None:
        """Fork; the child keeps the write ends, this process the read ends. Raises OSError: nothing has begun."""
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes.extend(os.pipe2(os.O_CLOEXEC))
            report, report_write, stdout, stdout_write, stderr, stderr_write = pipes
            self._running[self._fork(request, pipes)] = Launch(request, answer, report, stdout, stderr)
        except OSError:
            proc.close(pipes)
            raise
        proc.close((report_write, stdout_write, stderr_write))

    def _fork(self, request: dict[str, Any], pipes: list[int]) -> int:
        _, report_write, stdout, stdout_write, stderr, stderr_write = pipes
        for each in (stdout, stderr):
            _enlarge(each)
        self._containers.expect(request, stdout, stderr)
        try:
            pid = os.fork()
        except OSError:
            self._containers.give_up(request, stdout, stderr)
            raise
        if pid == 0:
            become_runtime(request, stdout_write, stderr_write, report_write, self._open_files)
        return pid

    def under_way(self, name: str) -> bool:
        return any(each.request["container"] == name for each in self._running.values())

    def ended(self, pid: int, status: int) -> bool:
        """Whether this child was a runtime; if so, its launch is answered."""
        launch = self._running.pop(pid, None)
        if launch is None:
            return False
        said = os.read(launch.report, 65536)
        os.close(launch.report)
        init = proc.read(launch.request["pid_file"]).strip() if status == 0 else ""
        if init.isdigit():
            self._succeeded(launch, int(init))
        else:
            self._failed(launch, status, json.loads(said) if said else {})
        return True

    def expire(self) -> None:
        """A runtime that hangs is killed with its whole session's group; it is then reaped and answered."""
        now = time.monotonic()
        for pid, launch in self._running.items():
            if now > launch.deadline and not launch.expired:
                launch.expired = True
                try:
                    os.killpg(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _succeeded(self, launch: Launch, pid: int) -> None:
        started = self._containers.start_time(pid) or self._containers.stranger(pid)
        launch.answer({"ok": True, "pid": pid, "start_time": started}, (launch.stdout, launch.stderr))
        try:
            self._containers.hold(launch.request, pid, started, launch.stdout, launch.stderr)
        except OSError as error:
            proc.complain(f"holding {launch.request['container']}", error)

    def _failed(self, launch: Launch, status: int, said: dict[str, Any]) -> None:
        self._containers.give_up(launch.request, launch.stdout, launch.stderr)
        words = "".join(_rest(each) for each in (launch.stderr, launch.stdout)).strip()
        answer = {"ok": False, "status": status, "expired": launch.expired, "output": words[-2000:], **said}
        launch.answer(answer)


def _rest(descriptor: int) -> str:
    """What a runtime that failed has printed."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 65536).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
    finally:
        os.close(descriptor)


def _enlarge(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return
