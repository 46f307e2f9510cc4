"""Programs of others that talk to others: told everything, bounded, and ended as a group, also when masu ends.

Not for short questions to the host itself: those are `command`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Final

from controller.frozen import dataclass

POLL_S: Final = 0.2
END_S: Final = 5.0
MOST_SAID: Final = 32 << 20
MOST_COMPLAINED: Final = 64 << 10
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""setpriv(1). The thread that started it waits for its end, so it is masu's end that counts (prctl(2))."""
PASSED_ON: Final = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
"""Of the environment, in small or in capital letters; the rest is masu's own business."""


class CannotRun(Exception):
    """setpriv is not there."""


class Halted(Exception):
    """masu is being stopped."""


class TookTooLong(Exception):
    """Its time was over."""


class SaidTooMuch(Exception):
    """More than anybody wants to hear."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit code, negative for a signal and 127 where there is no such program; of its complaints the last ones."""

    status: int
    said: bytes
    complained: bytes


class ToolRuns:
    """Thread-safe, and may be halted from anywhere but a signal's handler."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._halted = False

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float,
        *,
        environment: Mapping[str, str] | None = None,
        given: bytes = b"",
        most: int = MOST_SAID,
        watch: Callable[[], None] | None = None,
    ) -> Ended:
        """`environment`: on top of what every program gets. `watch` is called now and then, and ends it by raising.

        Whoever else still holds its pipes when it has ended is ended, too. Raises CannotRun, Halted, TookTooLong
        and SaidTooMuch.
        """
        with _memory(given) as descriptor:
            process = self._start(argv, descriptor, {**_environment(), **(environment or {})})
        try:
            said, complained = _heard(process, time.monotonic() + timeout_s, most, watch)
        finally:
            self._end(process)
        if process.returncode and self._halted:
            raise Halted
        return Ended(process.returncode or 0, said, complained)

    def halt(self) -> None:
        """Whatever runs, and whatever is asked for from now on, fails."""
        with self._lock:
            self._halted = True
            for process in self._running:
                _kill(process)

    def _start(
        self, argv: Sequence[str], given: int, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._halted:
                raise Halted
            try:
                process = subprocess.Popen(
                    [*DIES_WITH_US, *argv],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise CannotRun(
                    f"{DIES_WITH_US[0]} cannot be run: {os.strerror(error.errno or 0)}"
                ) from error
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """With its group, whose number nobody else has as long as nobody has waited for the process."""
        with self._lock:
            self._running.discard(process)
            _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def _heard(
    process: subprocess.Popen[bytes], until: float, most: int, watch: Callable[[], None] | None
) -> tuple[bytes, bytes]:
    """What it says until it ends; it is not reaped. Raises TookTooLong, SaidTooMuch, and what `watch` raises."""
    said, complained = bytearray(), bytearray()
    with _ending(process) as ended:
        into = {_descriptor(process.stdout): said, _descriptor(process.stderr): complained}
        waiting = select.poll()  # select(2) takes no descriptor above 1023
        for each in (ended, *into):
            waiting.register(each, select.POLLIN)
        watch_at = time.monotonic() + POLL_S
        while True:
            pause = min(until, watch_at if watch else until) - time.monotonic()
            ready = [each for each, _ in waiting.poll(max(0.0, pause) * 1000)]
            if ready == [ended]:
                return bytes(said), bytes(complained)
            for each in ready:
                if each != ended and not _read(each, into[each]):
                    waiting.unregister(each)
            if len(said) > most:
                raise SaidTooMuch
            del complained[:-MOST_COMPLAINED]
            now = time.monotonic()
            if now >= until:
                raise TookTooLong
            if watch and now >= watch_at:
                watch()
                watch_at = now + POLL_S


def _read(descriptor: int, into: bytearray) -> bool:
    part = os.read(descriptor, 1 << 16)
    into += part
    return bool(part)


def _descriptor(pipe: IO[bytes] | None) -> int:
    assert pipe is not None  # noqa: S101  it was asked for
    return pipe.fileno()


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Readable when it has ended. pidfd_open(2)."""
    descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """A file without a name: whoever reads it never waits for masu."""
    descriptor = os.memfd_create("masu-given")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name in PROXIES or (name.isupper() and name.lower() in PROXIES)
    }
    return {
        "PATH": os.defpath,
        **passed_on,
        "HOME": "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
        "LC_ALL": "C",
    }
