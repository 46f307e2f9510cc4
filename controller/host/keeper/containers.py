"""The containers that the keeper holds: their log pipes, and how they end."""

from __future__ import annotations

import contextlib
import os
import select
import time

import proc
from logbook import Logbook, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from typing import Any

REMEMBERED = 1000
EXIT_PATIENCE_S = 2.0


class Held:
    """One container: init's pid and start time, and its open streams by descriptor."""

    def __init__(self, name: str, pid: int, started: int, book: Logbook) -> None:
        self.name, self.pid, self.started, self.book = name, pid, started, book
        self.streams: dict[int, Stream] = {}
        self.exited = False
        self.pidfd = -1
        self.gone_at = 0.0


class Containers:
    """Everything the keeper knows of containers; `RUN_DIR/pipes/<name>.json` is what a successor needs."""

    def __init__(self, run_dir: str, log_dir: str, epoll: select.epoll) -> None:
        self._run_dir, self._log_dir, self._epoll = run_dir, log_dir, epoll
        self._held: dict[str, Held] = {}
        self._by_descriptor: dict[int, Held] = {}
        self._strangers: dict[int, tuple[int, int]] = {}
        self._boot_id = proc.read("/proc/sys/kernel/random/boot_id").strip()
        for part in ("pipes", "exits"):
            os.makedirs(f"{run_dir}/{part}", mode=0o700, exist_ok=True)

    @property
    def held(self) -> bool:
        return bool(self._held)

    @property
    def orphaned(self) -> bool:
        """Some init is not a child of this keeper, so nobody tells when it has been reaped."""
        return any(each.gone_at for each in self._held.values())

    def open_book(self, request: dict[str, Any]) -> Logbook:
        log = request["log"]
        return Logbook(f"{self._log_dir}/{request['container']}", log["max_bytes"], log["files"])

    def hold(
        self, request: dict[str, Any], pid: int, started: int, stdout: int, stderr: int, book: Logbook
    ) -> None:
        """Take a container whose runtime has just succeeded; one of the same name before it has ended."""
        name = request["container"]
        self._drop(name)
        held = Held(name, pid, started, book)
        self._held[name] = held
        self._listen(held, stdout, stderr)
        inodes = [os.fstat(stdout).st_ino, os.fstat(stderr).st_ino]
        known = {
            "pid": pid,
            "started": started,
            "pipes": inodes,
            "members": request["members"],
            "log": request["log"],
        }
        proc.write_json(self._known(name), known)
        if pid in self._strangers:
            self.ended(pid, *self._strangers.pop(pid))

    def take_over(self) -> None:
        """A keeper before this one is gone: find its pipes again through whoever still has them open."""
        for file in os.listdir(f"{self._run_dir}/pipes"):
            name = file.removesuffix(".json")
            if file.endswith(".json") and name not in self._held:
                self._take_over_one(name, proc.read_json(self._known(name)), [])

    def adopt(self, request: dict[str, Any], descriptors: list[int]) -> bool:
        """The controller still had the read ends of a container whose keeper is gone."""
        name = request["container"]
        held = self._held.get(name)
        if held is None:
            return self._take_over_one(name, proc.read_json(self._known(name)), descriptors)
        for each in descriptors:
            os.close(each)
        return True

    def _take_over_one(self, name: str, known: dict[str, Any], descriptors: list[int]) -> bool:
        if not known:
            return False
        members = [int(word) for word in proc.read(known["members"]).split()]
        pids = [known["pid"], *members]
        pipes = descriptors or [proc.reopen_pipe(pids, inode) for inode in known["pipes"]]
        alive = proc.start_time(known["pid"]) == known["started"]
        if not alive and all(pipe < 0 for pipe in pipes):
            return False
        held = Held(name, known["pid"], known["started"], self.open_book({"container": name, **known}))
        self._held[name] = held
        self._listen(held, *[*pipes, -1, -1][:2])
        held.pidfd = _pidfd(known["pid"]) if alive else -1
        if held.pidfd >= 0:
            self._by_descriptor[held.pidfd] = held
            self._epoll.register(held.pidfd, select.EPOLLIN)
        else:
            self._write_exit(held, None)
        return True

    def ready(self, descriptor: int) -> None:
        """A pipe has something to read or has ended, or an adopted init has."""
        held = self._by_descriptor.get(descriptor)
        if held is None:
            return
        if descriptor == held.pidfd:
            self._epoll.unregister(descriptor)
            held.gone_at = time.monotonic()
        elif not held.streams[descriptor].drain():
            self._close_stream(held, descriptor)
            self._drop_if_done(held)

    def look_for_exits(self) -> None:
        """Inits that are nobody's children of ours: the kernel tells their status once they are reaped."""
        for held in [each for each in self._held.values() if each.gone_at and not each.exited]:
            status = proc.exit_status(held.pidfd)
            if status is not None or time.monotonic() - held.gone_at > EXIT_PATIENCE_S:
                self._write_exit(held, status)

    def start_time(self, pid: int) -> int:
        return proc.start_time(pid)

    def ended(self, pid: int, started: int, status: int) -> None:
        """A child was reaped: a container's init, one that is still being launched, or a stranger's orphan."""
        for held in list(self._held.values()):
            if held.pid == pid and held.started == started:
                self._write_exit(held, status)
                return
        self._strangers[pid] = (started, status)
        while len(self._strangers) > REMEMBERED:
            del self._strangers[next(iter(self._strangers))]

    def stranger(self, pid: int) -> int:
        """Start time of a child that ended before it was known to be a container; 0: no such child."""
        return self._strangers.get(pid, (0, 0))[0]

    def forget(self, name: str) -> None:
        self._drop(name)
        for path in (self._known(name), f"{self._run_dir}/exits/{name}.json"):
            if os.path.exists(path):
                os.unlink(path)

    def _write_exit(self, held: Held, status: int | None) -> None:
        """After the last log bytes, so that whoever sees the exit finds the whole log."""
        for stream in list(held.streams.values()):
            stream.drain()
        code = -1 if status is None else (0 if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status))
        value = {
            "pid": held.pid,
            "start_time": held.started,
            "boot_id": self._boot_id,
            "code": code,
            "signal": os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0,
            "at": time.time_ns() // 1_000_000,
        }
        with contextlib.suppress(OSError):
            proc.write_json(f"{self._run_dir}/exits/{held.name}.json", value)
        held.exited, held.gone_at = True, 0.0
        self._drop_if_done(held)

    def _listen(self, held: Held, stdout: int, stderr: int) -> None:
        for name, descriptor in ((b"stdout", stdout), (b"stderr", stderr)):
            if descriptor >= 0:
                held.streams[descriptor] = Stream(name, descriptor, held.book)
                self._by_descriptor[descriptor] = held
                self._epoll.register(descriptor, select.EPOLLIN)

    def _close_stream(self, held: Held, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del held.streams[descriptor], self._by_descriptor[descriptor]
        os.close(descriptor)

    def _drop_if_done(self, held: Held) -> None:
        if held.exited and not held.streams:
            self._drop(held.name)

    def _drop(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is None:
            return
        for descriptor, stream in list(held.streams.items()):
            stream.drain()
            self._close_stream(held, descriptor)
        if held.pidfd >= 0:
            self._by_descriptor.pop(held.pidfd, None)
            os.close(held.pidfd)
        held.book.close()
        if os.path.exists(self._known(name)):
            os.unlink(self._known(name))

    def _known(self, name: str) -> str:
        return f"{self._run_dir}/pipes/{name}.json"


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
