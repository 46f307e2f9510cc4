"""The containers that the keeper holds: their log pipes, and how they end."""

from __future__ import annotations

import contextlib
import os
import select
import time

import proc
from logbook import Logbook
from stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from typing import Any

REMEMBERED = 1000
EXIT_PATIENCE_S = 2.0
LAST_ROUNDS = 4  # a pipe holds 1 MiB at most, unless root has raised the limit; a round takes half of that


class Held:
    """One container: init's pid and start time, its two streams, and what is known of its end."""

    def __init__(self, name: str, pid: int, started: int, book: Logbook, streams: tuple[Stream, ...]) -> None:
        self.name, self.pid, self.started = name, pid, started
        self.book, self.streams = book, streams
        self.pidfd = -1
        self.gone_at = 0.0
        self.end: dict[str, Any] | None = None
        self.published = False

    @property
    def waiting(self) -> bool:
        """Its end is to be looked up, or to be written down once more."""
        return bool(self.gone_at or self.end) and not self.published


class Containers:
    """Everything the keeper knows of containers. `RUN_DIR/pipes/<name>.*` is what a successor needs:

    `json` says what to look for, `launch` the same of a launch under way, `reached` is the logbook's,
    `stdout` and `stderr` are spools.
    """

    def __init__(self, run_dir: str, log_dir: str, epoll: select.epoll) -> None:
        self._run_dir, self._log_dir, self._epoll = run_dir, log_dir, epoll
        self._held: dict[str, Held] = {}
        self._by_descriptor: dict[int, tuple[Held, Stream | None]] = {}
        self._unborn: dict[str, float] = {}
        self._strangers: dict[int, tuple[int, int]] = {}
        self._boot_id = proc.read("/proc/sys/kernel/random/boot_id").strip()
        for part in ("pipes", "exits"):
            os.makedirs(f"{run_dir}/{part}", mode=0o700, exist_ok=True)

    @property
    def held(self) -> bool:
        return bool(self._held or self._unborn)

    @property
    def impatient(self) -> bool:
        """Something has to be looked at again soon, because no event will tell."""
        return bool(self._unborn) or any(each.waiting for each in self._held.values())

    def expect(self, request: dict[str, Any], pipes: tuple[int, int]) -> None:
        """A launch begins: should this keeper not live to see the container, a successor finds it."""
        name = request["container"]
        self._unborn.pop(name, None)
        known = {
            "boot_id": self._boot_id,
            "pid_file": request["pid_file"],
            "pipes": [os.fstat(each).st_ino for each in pipes],
            "members": request["members"],
            "log": request["log"],
            "timeout_ms": request["timeout_ms"],
        }
        self._remember(name, "launch", known)

    def unexpect(self, name: str) -> None:
        """The launch has failed."""
        self._unborn.pop(name, None)
        _unlink(self._known(name, "launch"))

    def hold(self, name: str, pid: int, started: int, pipes: tuple[int, int]) -> None:
        """Take a container whose launch has succeeded; one of the same name before it has ended."""
        known = {**proc.read_json(self._known(name, "launch")), "pid": pid, "started": started}
        self._drop(name)
        self._remember(name, "json", known)
        self.unexpect(name)
        held = self._open(name, known)
        self._attach(held, pipes)
        if pid in self._strangers:
            self.ended(pid, *self._strangers.pop(pid))

    def take_over(self) -> None:
        """A keeper before this one is gone: find its pipes again through whoever still has them open."""
        for file in os.listdir(f"{self._run_dir}/pipes"):
            name, _, kind = file.rpartition(".")
            known = proc.read_json(self._known(name, kind)) if kind in {"json", "launch"} else {}
            if known.get("boot_id") != self._boot_id:
                continue
            if kind == "launch":
                self._unborn[name] = time.monotonic() + known["timeout_ms"] / 1000
            else:
                self._take_over_one(name, known)

    def _take_over_one(self, name: str, known: dict[str, Any]) -> None:
        """What the writers do not have open any more, the controller may: see `adopt`."""
        held = self._open(name, known)
        members = [int(word) for word in proc.read(known["members"]).split()]
        self._attach(held, [proc.reopen_pipe([held.pid, *members], inode) for inode in known["pipes"]])
        exits = proc.read_json(self._exits(name))
        held.published = exits.get("start_time") == held.started
        if proc.start_time(held.pid) == held.started:
            self._watch(held, _pidfd(held.pid))
        else:
            held.gone_at = time.monotonic()
        self._drop_if_done(held)

    def adopt(self, name: str, descriptors: list[int]) -> bool:
        """The controller's descriptors of stdout, stderr and init, for those that could not be found."""
        held = self._held.get(name)
        pipes, pidfd = [*descriptors, -1, -1][:2], [*descriptors, -1, -1, -1][2]
        if held and held.pidfd < 0 and not held.published and pidfd >= 0:
            self._watch(held, pidfd)
        elif pidfd >= 0:
            os.close(pidfd)
        if held:
            self._attach(held, pipes)
        else:
            _close(pipes)
        return held is not None

    def descriptors(self, name: str) -> list[int]:
        """For the controller to keep: both pipes, which stay ours, and a pidfd, which is the caller's to close."""
        held = self._held.get(name)
        if held is None or any(each.descriptor < 0 for each in held.streams):
            return []
        same = proc.start_time(held.pid) == held.started
        pidfd = _pidfd(held.pid) if same else -1
        return [each.descriptor for each in held.streams] + ([pidfd] if pidfd >= 0 else [])

    def ready(self, descriptor: int) -> None:
        """A pipe has something to read or has ended, or an adopted init has."""
        held, stream = self._by_descriptor.get(descriptor, (None, None))
        if held is None:
            return
        if stream is None:
            self._epoll.unregister(descriptor)
            held.gone_at = time.monotonic()
        elif not stream.drain():
            self._finish(stream)
            self._drop_if_done(held)

    def look_again(self) -> None:
        """Inits that are nobody's children of ours: the kernel tells their status once they are reaped."""
        for held in [each for each in self._held.values() if each.waiting]:
            if held.end is None:
                status = proc.exit_status(held.pidfd)
                if status is not None or time.monotonic() - held.gone_at > EXIT_PATIENCE_S:
                    self._ended(held, status)
            else:
                self._publish(held)
        for name, deadline in list(self._unborn.items()):
            self._look_for_birth(name, deadline)

    def _look_for_birth(self, name: str, deadline: float) -> None:
        """A runtime that the keeper before this one started may yet succeed: it writes init's pid at the end."""
        known = proc.read_json(self._known(name, "launch"))
        pid = proc.read_pid(known["pid_file"]) if known else 0
        pipe = proc.reopen_pipe([pid], known["pipes"][0]) if pid else -1
        if pipe >= 0:
            os.close(pipe)
            self.hold(name, pid, proc.start_time(pid), (-1, -1))
            self._take_over_one(name, proc.read_json(self._known(name, "json")))
        elif not known or time.monotonic() > deadline:
            self.unexpect(name)

    def ended(self, pid: int, started: int, status: int) -> None:
        """A child was reaped: a container's init, one that is still being launched, or a stranger's orphan."""
        for held in list(self._held.values()):
            if held.pid == pid and held.started == started:
                self._ended(held, status)
                return
        self._strangers[pid] = (started, status)
        while len(self._strangers) > REMEMBERED:
            del self._strangers[next(iter(self._strangers))]

    def stranger(self, pid: int) -> int:
        """Start time of a child that ended before it was known to be a container; 0: no such child."""
        return self._strangers.get(pid, (0, 0))[0]

    def forget(self, name: str) -> None:
        self._drop(name)
        self.unexpect(name)
        self._unlink_all(name)
        _unlink(self._exits(name))

    def _ended(self, held: Held, status: int | None) -> None:
        signalled = status is not None and os.WIFSIGNALED(status)
        held.end = {
            "pid": held.pid,
            "start_time": held.started,
            "boot_id": self._boot_id,
            "code": -1 if status is None else (0 if signalled else os.waitstatus_to_exitcode(status)),
            "signal": os.WTERMSIG(status) if status is not None and signalled else 0,
            "at": time.time_ns() // 1_000_000,
        }
        self._publish(held)

    def _publish(self, held: Held) -> None:
        """After the last log bytes, so that whoever sees the exit finds the whole log."""
        for stream in held.streams:
            open_ = stream.descriptor >= 0
            if open_ and not all(stream.drain() for _ in range(LAST_ROUNDS)):
                self._finish(stream)
        try:
            proc.write_json(self._exits(held.name), held.end or {})
        except OSError as error:
            proc.complain(f"exit of {held.name} not written: {error}")
            return
        held.published = True
        self._drop_if_done(held)

    def _open(self, name: str, known: dict[str, Any]) -> Held:
        log, base = known["log"], f"{self._run_dir}/pipes/{name}"
        book = Logbook(f"{self._log_dir}/{name}", base + ".reached", log["max_bytes"], log["files"])
        streams = (Stream(0, base, book), Stream(1, base, book))
        held = self._held[name] = Held(name, known["pid"], known["started"], book, streams)
        return held

    def _attach(self, held: Held, pipes: list[int] | tuple[int, int]) -> None:
        for stream, descriptor in zip(held.streams, pipes, strict=True):
            if descriptor < 0:
                continue
            if stream.descriptor >= 0 or held.published:
                os.close(descriptor)
                continue
            os.set_blocking(descriptor, False)
            stream.descriptor = descriptor
            self._by_descriptor[descriptor] = (held, stream)
            self._epoll.register(descriptor, select.EPOLLIN)

    def _watch(self, held: Held, pidfd: int) -> None:
        if pidfd >= 0:
            held.pidfd = pidfd
            self._by_descriptor[pidfd] = (held, None)
            self._epoll.register(pidfd, select.EPOLLIN)

    def _finish(self, stream: Stream) -> None:
        if stream.descriptor >= 0:
            self._epoll.unregister(stream.descriptor)
            del self._by_descriptor[stream.descriptor]
        stream.finish()
        stream.close()

    def _drop_if_done(self, held: Held) -> None:
        if held.published and all(each.descriptor < 0 for each in held.streams):
            self._drop(held.name)

    def _drop(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is None:
            return
        for stream in held.streams:
            if stream.descriptor >= 0:
                stream.drain()
            self._finish(stream)
        if held.pidfd >= 0:
            self._by_descriptor.pop(held.pidfd, None)
            os.close(held.pidfd)
        held.book.close()
        self._unlink_all(name)

    def _unlink_all(self, name: str) -> None:
        for kind in ("json", "stdout", "stderr", "reached"):
            _unlink(self._known(name, kind))

    def _remember(self, name: str, kind: str, known: dict[str, Any]) -> None:
        try:
            proc.write_json(self._known(name, kind), known)
        except OSError as error:
            proc.complain(f"{name} would not survive this keeper: {error}")

    def _known(self, name: str, kind: str) -> str:
        return f"{self._run_dir}/pipes/{name}.{kind}"

    def _exits(self, name: str) -> str:
        return f"{self._run_dir}/exits/{name}.json"


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        if each >= 0:
            os.close(each)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
