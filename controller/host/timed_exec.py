"""A program of its own: commands in containers, each with a time-out that holds whatever becomes of masu.

It decides nothing. `python -c BOOT directory number`: by the socket of that number come other sockets, one for each
command; by that comes the order, a line of JSON, and back goes what came of it. A process is forked for each, since
to start one costs several times as much as the command. It ends with whoever holds the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict

from controller.frozen import dataclass
from controller.host.entering import WayIn, enter
from controller.model.cgroups import budget_of
from controller.model.process import CANNOT_RUN, TIMED_OUT

BOOT = (
    "import sys; sys.path[:0] = sys.argv[1:2];"
    " from controller.host.timed_exec import serve; serve(int(sys.argv[2]))"
)
MOST_SAID = 4096
MOST_AT_ONCE = 1 << 20
"""More than a pipe holds."""
KILL_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """`pid_file`: where the runtime writes the command's pid. `group`: the cgroup that it is in."""

    way: WayIn
    pid_file: str
    group: str
    timeout_s: float

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Order:
        value = json.loads(line)
        way = value.pop("way")
        return cls(WayIn(tuple(way["argv"]), tuple(way["join"]), way["init"], way["shown"]), **value)


def serve(number: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(fileno=number) as orders:
        while True:
            _, descriptors, _, _ = socket.recv_fds(orders, 1, 1)
            if not descriptors:
                return
            if os.fork() == 0:
                orders.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setsid()
                _obey(descriptors[0])
                os._exit(0)
            os.close(descriptors[0])


def _obey(descriptor: int) -> None:
    """Whoever asked may have gone meanwhile."""
    with contextlib.suppress(OSError, ValueError), socket.socket(fileno=descriptor) as asked:
        with asked.makefile(encoding="utf-8") as lines:
            order = Order.from_line(lines.readline())
        _remove(order.pid_file)
        try:
            status, said = _run(order)
        except (OSError, subprocess.SubprocessError) as error:
            status, said = CANNOT_RUN, str(error)
        _remove(order.pid_file)
        asked.sendall(f"{status}\n{said}\n".encode())


def _run(order: Order) -> tuple[int, str]:
    """Whoever the command leaves behind on purpose may go on, and is not waited for."""
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)
    process = subprocess.Popen(
        order.way.argv,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        process_group=0,
        preexec_fn=lambda: enter(order.way),  # noqa: PLW1509  there is one thread here
    )
    os.close(theirs)
    said, in_time = _listen(process, ours, order.timeout_s)
    if not in_time:
        _end(order)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return TIMED_OUT, _last_line(said)
    code = process.wait()
    return 128 - code if code < 0 else code, _last_line(said)


def _listen(process: subprocess.Popen[bytes], pipe: int, timeout_s: float) -> tuple[bytes, bool]:
    """The end of what it says until it ends; and whether it did in time."""
    deadline, said = time.monotonic() + timeout_s, b""
    poll = select.poll()
    ended = os.pidfd_open(process.pid)
    for descriptor in (ended, pipe):
        poll.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
        part = _read(pipe) if pipe in ready else b""
        said = (said + part)[-MOST_SAID:]
        if ended in ready:
            return (said + _read(pipe))[-MOST_SAID:], True
        if pipe in ready and not part:
            poll.unregister(pipe)
    return said, False


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, MOST_AT_ONCE)
    except BlockingIOError:
        return b""


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _end(order: Order) -> None:
    """SIGKILL the command and its session, as long as anybody of it is there: the runtime makes it a leader."""
    try:
        with open(order.pid_file) as file:
            leader = int(file.read())
    except (OSError, ValueError):
        return  # it had not come so far
    deadline = time.monotonic() + KILL_PATIENCE_S
    while time.monotonic() < deadline:
        members = list(_members(leader, order.group))
        if not members:
            return
        for pid in members:
            _kill(pid, leader, order.group)
        time.sleep(0.01)


def _members(leader: int, group: str) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _belongs(int(entry), leader, group):
            yield int(entry)


def _kill(pid: int, leader: int, group: str) -> None:
    """The number may be somebody else's by now."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _belongs(pid, leader, group):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _belongs(pid: int, leader: int, group: str) -> bool:
    """Alive, in that session (field 6 of /proc/PID/stat), and in the container's cgroup."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            state, _, _, session, *_ = file.read().rpartition(")")[2].split()
        if session != str(leader) or state in {"Z", "X"}:
            return False
        with open(f"/proc/{pid}/cgroup") as file:
            paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    except (OSError, ValueError):
        return False
    return any(budget_of(group, path) is not None for path in paths)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
