"""Programs that fetch and unpack images: watched while they run, and ended as a group, also when masu ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from controller.errors import HostLacks, StepFailed
from controller.model.image import Amount

POLL_S: Final = 0.2
_DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""setpriv(1). The thread that started it waits for its end, so it is masu's end that counts (prctl(2))."""
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_IN_VAIN = re.compile(r'^Error parsing image name "[^"]*": ')
"""What skopeo begins with whatever is wrong; whose name it is, is said anyway."""
_WORDS = re.compile(r"\w.*")
"""umoci begins its lines with a bullet."""
_LONGEST = 400


class Pulling:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._halted = False

    def run(self, argv: Sequence[str], timeout_s: float, watch: Callable[[], None] | None = None) -> bytes:
        """→ what it said. `watch` is called now and then, and ends it by raising.

        Raises HostLacks where there is no such program, StepFailed with its own words, or when it took too long.
        """
        name, process = os.path.basename(argv[0]), self._start(argv)
        until = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    said, complained = process.communicate(timeout=POLL_S if watch else timeout_s)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= until:
                        raise StepFailed(f"{name} has not ended within {timeout_s:g} s") from None
                    if watch:
                        watch()
        finally:
            self._end(process)
        if process.returncode and self._halted:
            raise StepFailed("masu is being stopped")
        if process.returncode:
            raise _failed(name, process.returncode, complained.decode(errors="replace"))
        return said

    def halt(self) -> None:
        with self._lock:
            self._halted = True
            for process in self._running:
                _kill(process)

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._halted:
                raise StepFailed("masu is being stopped")
            try:
                process = subprocess.Popen(
                    [*_DIES_WITH_US, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", **_proxies()},
                )
            except OSError as error:
                raise HostLacks(f"{_DIES_WITH_US[0]} cannot be run: {error.strerror}") from error
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Whoever else still holds its pipes is not waited for."""
        _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        with self._lock:
            self._running.discard(process)


class Watch:
    """How much has come, and whether anything still does."""

    def __init__(self, layout: str, total: int, stall_s: float, told: Callable[[Amount], None]) -> None:
        self._layout, self._total, self._stall_s, self._told = layout, total, stall_s, told
        self._done, self._at = -1, time.monotonic()

    def look(self) -> None:
        """Raises StepFailed."""
        done, now = _size(self._layout), time.monotonic()
        if done != self._done:
            self._done, self._at = done, now
            self._told(Amount("fetching", done, self._total))
        elif now - self._at > self._stall_s:
            raise StepFailed(f"nothing has come for {self._stall_s:g} s: given up")


def _size(directory: str) -> int:
    """Bytes of all files in it; of one that is just renamed, perhaps none."""
    total, waiting = 0, [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    waiting.append(each.path)
                else:
                    with contextlib.suppress(OSError):
                        total += each.stat(follow_symlinks=False).st_size
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its group, whose number nobody else has as long as it was not waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _proxies() -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {key: value for key, value in os.environ.items() if key.upper() in names}


def _failed(name: str, status: int, said: str) -> StepFailed:
    fatal = _FATAL.search(said)
    lines = [found[0].strip() for line in said.splitlines() if (found := _WORDS.search(line))]
    words = fatal[1].replace('\\"', '"').replace("\\\\", "\\") if fatal else lines[-1] if lines else ""
    words = _IN_VAIN.sub("", words)
    if len(words) > _LONGEST:
        words = f"{words[: _LONGEST // 2]} … {words[-_LONGEST // 2 :]}"
    full = "no space left on device" in words.lower()
    return StepFailed(f"{name}: {words or f'ended with {status}'}", errno=errno.ENOSPC if full else 0)
