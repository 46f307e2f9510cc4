"""The keeper: what must outlive the controller. One small process per instance: RUN_DIR LOG_DIR OPEN_FILES.

It starts runtimes, and so becomes the parent of every container's init; it reads their log pipes and writes
down how they end. It decides nothing, imports little, and may be killed: a new one takes over.
OPEN_FILES is the soft limit that containers start with; its own is as high as may be.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time

import local_socket
import proc
from containers import Containers
from launches import Launches

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Callable
    from typing import Any

VERSION = 1
IDLE_S = 5.0
MAX_REQUEST = 4 * 1024 * 1024
TICK_S = 0.25
TROUBLE_S = 0.01
LAST_S = 1.0


class Connection:
    """One client and what it has sent so far, descriptors included."""

    def __init__(self, sock: local_socket.Socket) -> None:
        self.sock = sock
        self.data = b""
        self.descriptors: list[int] = []

    def receive(self) -> bool:
        """False when the client is gone."""
        try:
            data, descriptors = local_socket.receive(self.sock)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.data += data
        self.descriptors.extend(descriptors)
        return bool(data) and len(self.data) < MAX_REQUEST

    def answer(self, value: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """An answer that nobody waits for any more is no failure."""
        text = json.dumps(value).encode() + b"\n"
        try:
            if descriptors:
                local_socket.send(self.sock, text, descriptors)
            else:
                self.sock.sendall(text)
        except OSError:
            return


class Keeper:
    """A single-threaded loop around one epoll."""

    def __init__(self, run_dir: str, log_dir: str, open_files: int, lock: int) -> None:
        self._lock = lock
        self._epoll = select.epoll()
        self._listener = local_socket.listen(run_dir + "/keeper.sock")
        self._epoll.register(self._listener, select.EPOLLIN)
        self._wake = _signal_pipe()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._containers = Containers(run_dir, log_dir, self._epoll, _named(lock))
        self._launches = Launches(self._containers, open_files)
        self._busy_at = time.monotonic()
        self._stopped = False
        self._trouble = ""

    def run(self) -> None:
        """Until nothing is held and nobody has been connected for a while."""
        self._try(self._containers.write_what_is_left)
        _name_itself(self._lock)  # not before: what is left counts from the one that is named alone
        self._try(self._containers.take_over)
        while not (self._stopped or self._idle()):
            for descriptor, _ in self._epoll.poll(TICK_S if self._impatient() else 1.0):
                self._try(self._ready, descriptor)
            self._launches.expire()
            self._try(self._containers.tend)

    def _try(self, call: Callable[..., None], *arguments: int) -> None:
        """One container's trouble is not the others'; the pause keeps a trouble that stays from taking a CPU."""
        try:
            call(*arguments)
        except OSError as error:
            if str(error) != self._trouble:
                proc.complain(call.__name__, error)
            self._trouble = str(error)
            time.sleep(TROUBLE_S)

    def _ready(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor == self._wake:
            _empty(self._wake)
            self._reap()
        elif descriptor in self._connections:
            self._serve(descriptor)
        else:
            self._containers.ready(descriptor)

    def _accept(self) -> None:
        sock = local_socket.accept(self._listener)
        if local_socket.user(sock) != os.geteuid():
            sock.close()
            return
        self._connections[sock.fileno()] = Connection(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        alive = connection.receive()
        line, newline, rest = connection.data.partition(b"\n")
        if newline:
            connection.data = rest
            self._obey(connection, line)
        elif not alive:
            self._epoll.unregister(descriptor)
            del self._connections[descriptor]
            for each in connection.descriptors:
                os.close(each)
            connection.sock.close()

    def _obey(self, connection: Connection, line: bytes) -> None:
        descriptors, connection.descriptors = connection.descriptors, []
        try:
            request = json.loads(line)
            operation = request["op"]
            if operation == "launch":
                self._launches.start(request, connection.answer)
            elif operation == "adopt":
                given, descriptors = descriptors, []
                connection.answer(self._adopt(request, given))
            elif operation == "forget":
                self._containers.forget(request["container"])
                connection.answer({"ok": True})
            elif operation == "stop":
                self._stopped = not (self._launches.pending or self._containers.held)
                if self._stopped:
                    self._reap_the_last()
                connection.answer({"ok": self._stopped})
            else:
                connection.answer({"ok": operation == "ping", **self._describe()})
        except (ValueError, KeyError, TypeError, OSError) as error:
            connection.answer({"ok": False, "message": f"{type(error).__name__}: {error}"})
        finally:
            for each in descriptors:
                os.close(each)

    def _adopt(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if self._launches.under_way(request["container"]):
            proc.close(descriptors)
            return {"ok": False, "message": "its launch is still under way"}
        if self._containers.adopt(request, descriptors):
            return {"ok": True}
        return {"ok": False, "message": "nothing is known of its pipes"}

    def _describe(self) -> dict[str, Any]:
        return {"version": VERSION, "pid": os.getpid(), "held": self._containers.held}

    def _reap_the_last(self) -> None:
        """Whoever is just ending, lest it is left to the host's pid 1."""
        until = time.monotonic() + LAST_S
        while self._reap() and time.monotonic() < until:
            time.sleep(0.001)

    def _reap(self) -> bool:
        """Every child that has ended: looked at before it is reaped, because then its start time is gone.

        → whether there are others.
        """
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if found is None:
                return True
            started = self._containers.start_time(found.si_pid)
            pid, status = os.waitpid(found.si_pid, 0)
            if not self._launches.ended(pid, status):
                self._containers.ended(pid, started, status)

    def _impatient(self) -> bool:
        return bool(self._launches.pending or self._containers.impatient)

    def _idle(self) -> bool:
        now = time.monotonic()
        if self._connections or self._launches.pending or self._containers.held:
            self._busy_at = now
        return now - self._busy_at > IDLE_S


def _signal_pipe() -> int:
    """SIGCHLD becomes a byte in a pipe; what would end or stop a service does nothing.

    What is handled, and not ignored, is as it was by default in a program that is executed.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _ignore_nothing()
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read


def _ignore_nothing() -> None:
    """What is ignored stays so in a program that is executed, and was perhaps so in whoever started masu.

    The kernel is asked itself: libc keeps the first two real-time signals to itself, and its posix_spawn(3) leaves
    them ignored. SIG_DFL without flags and mask is all zeros, whichever way an architecture arranges the structure.
    """
    import ctypes  # noqa: PLC0415

    from launching import LIBC  # noqa: PLC0415

    number = {"x86_64": 13, "ppc64le": 173, "s390x": 174, "armv7l": 174, "i686": 174}.get(
        os.uname().machine, 134
    )
    for signum in range(1, 65):
        LIBC.syscall(number, signum, bytes(64), None, ctypes.c_size_t(8))


def _empty(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def _only_one(run_dir: str) -> int:
    """→ a lock that is held for life; whoever comes second leaves quietly."""
    lock = os.open(run_dir + "/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(0)
    return lock


def _named(lock: int) -> int:
    """Pid of the keeper whose word was the last, or 0."""
    text = os.pread(lock, 32, 0)
    return int(text) if text.isdigit() else 0


def _name_itself(lock: int) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def _become_subreaper() -> None:
    """prctl(2): orphans among the descendants become this process's children."""
    from launching import LIBC  # noqa: PLC0415

    LIBC.prctl(36, 1, 0, 0, 0)


def _raise_limit() -> None:
    """Three descriptors and more for each container: the soft limit, made for select(2), is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    run_dir, log_dir, open_files = sys.argv[1:4]
    os.chdir("/")
    os.umask(0o077)
    lock = _only_one(run_dir)
    _become_subreaper()
    _raise_limit()
    Keeper(run_dir, log_dir, int(open_files), lock).run()


main()
