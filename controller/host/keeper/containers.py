"""The containers that the keeper holds: their log pipes, and how they end.

`RUN_DIR/pipes/<name>.json` is what a successor needs. It is written before the runtime is started, without init's
pid, so that a keeper that is killed in the middle of a launch leaves no container whose pipes nobody knows.
"""

from __future__ import annotations

import os
import select
import time

import proc
from logbook import Lines, Logbook, Stream
from unwritten import Left, Rest, Unwritten

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from typing import Any

REMEMBERED = 1000
STREAMS = (b"stdout", b"stderr")
EXIT_PATIENCE_S = 2.0
TRY_AGAIN_S = 1.0


class Held:
    """One container: what its file says, and its open streams by descriptor.

    Pid 0: its launch, which another keeper began, has yet to say who init is.
    """

    def __init__(self, name: str, known: dict[str, Any], book: Logbook) -> None:
        self.name, self.known, self.book = name, known, book
        self.streams: dict[int, Stream] = {}
        self.exited = False
        self.pidfd = -1
        self.gone_at = 0.0

    @property
    def pid(self) -> int:
        return int(self.known["pid"])

    @property
    def started(self) -> int:
        return int(self.known["started"])


class Containers:
    """Everything the keeper knows of containers."""

    def __init__(self, run_dir: str, log_dir: str, epoll: select.epoll, predecessor: int) -> None:
        """`predecessor`: pid of the keeper before this one, or 0."""
        self._run_dir, self._log_dir, self._epoll = run_dir, log_dir, epoll
        self._held: dict[str, Held] = {}
        self._by_descriptor: dict[int, Held] = {}
        self._strangers: dict[int, tuple[int, int]] = {}
        self._expected: dict[str, list[int]] = {}
        self._unfinished: set[Stream] = set()
        self._again_at = 0.0
        self._boot_id = proc.read("/proc/sys/kernel/random/boot_id").strip()
        for part in ("pipes", "exits"):
            os.makedirs(f"{run_dir}/{part}", mode=0o700, exist_ok=True)
        self._unwritten = Unwritten(f"{run_dir}/unwritten", predecessor)

    def write_what_is_left(self) -> None:
        """A keeper before this one may have been killed, and in the middle of a line."""
        left = self._unwritten.left()
        try:
            if left:
                self._write_again(left)
        except (OSError, ValueError, KeyError, TypeError) as error:
            proc.complain("what the keeper before this one was just writing", error)
        finally:
            self._unwritten.end()

    def _write_again(self, left: Left) -> None:
        container, _, stream = left.key.partition(b"/")
        name = container.decode(errors="replace")
        known = proc.read_json(self._known(name))
        if known:
            book = self._open_book(name, known)
            book.cut(left)
            lines = Lines(stream, book, left.rest, begun=left.begun)
            lines.take(left.data)
            self._rest(name, stream).keep(lines.rest, begun=lines.begun)
            book.close()

    @property
    def held(self) -> int:
        """How many containers there are to be looked after."""
        return len(self._held) or int(self._again_at > 0)

    @property
    def impatient(self) -> bool:
        """Something is due soon: an init that is not a child of this keeper has ended, so nobody tells when its
        status is known; or a line waits for its end."""
        return bool(self._unfinished) or any(each.gone_at for each in self._held.values())

    def tend(self) -> None:
        """What no event tells of."""
        self._look_for_exits()
        for stream in [each for each in self._unfinished if each.flush()]:
            self._unfinished.discard(stream)
        if self._again_at and time.monotonic() > self._again_at:
            self.take_over()

    def expect(self, request: dict[str, Any], stdout: int, stderr: int) -> None:
        """A launch is about to begin; `hold` or `give_up` will tell how it went, or a successor finds it."""
        path, value = self._known(request["container"]), _known(request, 0, 0, stdout, stderr)
        self._expected[request["container"]] = value["pipes"]
        if not proc.write_json(path, value):
            proc.remove(path)  # it would tell of another run

    def give_up(self, request: dict[str, Any], stdout: int, stderr: int) -> None:
        """The launch has failed."""
        self._settle(request["container"], _inodes(stdout, stderr))
        self._remove_known(request["container"], _inodes(stdout, stderr))

    def hold(self, request: dict[str, Any], pid: int, started: int, stdout: int, stderr: int) -> None:
        """Take a container whose runtime has just succeeded; one of the same name before it has ended."""
        name = request["container"]
        self._drop(name)
        known = _known(request, pid, started, stdout, stderr)
        self._settle(name, known["pipes"])
        proc.write_json(self._known(name), known)
        held = self._held[name] = Held(name, known, self._open_book(name, known))
        self._listen(held, stdout, stderr, goes_on=False)
        if pid in self._strangers:
            self.ended(pid, *self._strangers.pop(pid))

    def take_over(self) -> None:
        """A keeper before this one is gone: find its pipes again through whoever still has them open."""
        self._again_at = 0.0
        files = os.listdir(f"{self._run_dir}/pipes")
        for name in [each.removesuffix(".json") for each in files if each.endswith(".json")]:
            if name in self._held or name in self._expected:
                continue
            try:
                self._take_over_one(name, proc.read_json(self._known(name)), [])
            except OSError as error:
                proc.complain(f"taking over {name}", error)
                self._again_at = time.monotonic() + TRY_AGAIN_S
            except (ValueError, KeyError, TypeError) as error:
                proc.complain(f"{self._known(name)} is damaged", error)

    def adopt(self, request: dict[str, Any], descriptors: list[int]) -> bool:
        """The controller knows more than a keeper whose predecessor was killed. → whether the container is held.

        It gives read ends that it still has, or says who init is.
        """
        name, pid, started = request["container"], request.get("pid", 0), request.get("start_time", 0)
        held = self._held.get(name)
        if held is None:
            known = proc.read_json(self._known(name))
            return self._take_over_one(name, {**known, **_init(pid, started)} if known else {}, descriptors)
        proc.close(descriptors)
        if pid and not held.pid:
            pidfd = _open_init(pid, started)
            held.known.update(_init(pid, started))
            proc.write_json(self._known(name), held.known)
            self._watch(held, pidfd)
        return pid in {0, held.pid}

    def _take_over_one(self, name: str, known: dict[str, Any], descriptors: list[int]) -> bool:
        """False: there is nothing to be held. Raises OSError when it should be tried again."""
        if not known:
            proc.close(descriptors)
            return False
        members = [int(word) for word in proc.read(known["members"]).split()]
        pidfd, pipes = _open_ends(known, members, descriptors)
        held = Held(name, known, self._open_book(name, known))
        self._listen(held, *[*pipes, -1, -1][:2], goes_on=True)
        if pidfd < 0 and not held.streams:
            held.book.close()
            return False
        self._held[name] = held
        if known["pid"]:
            self._watch(held, pidfd)
        return True

    def _watch(self, held: Held, pidfd: int) -> None:
        """Wait for the end of an init that is not a child of this keeper; -1: it has ended."""
        held.pidfd = pidfd
        if pidfd >= 0:
            self._by_descriptor[pidfd] = held
            self._epoll.register(pidfd, select.EPOLLIN)
        else:
            self._write_exit(held, None)

    def ready(self, descriptor: int) -> None:
        """A pipe has something to read or has ended, or an adopted init has."""
        held = self._by_descriptor.get(descriptor)
        if held is None:
            return
        if descriptor == held.pidfd:
            self._epoll.unregister(descriptor)
            held.gone_at = time.monotonic()
        elif not self._drain(held.streams[descriptor]):
            self._close_stream(held, descriptor)
            self._drop_if_done(held)

    def _look_for_exits(self) -> None:
        """Of inits that are not this keeper's children."""
        for held in [each for each in self._held.values() if each.gone_at and not each.exited]:
            status = proc.exit_status(held.pid, held.pidfd)
            if status is not None or time.monotonic() - held.gone_at > EXIT_PATIENCE_S:
                self._write_exit(held, status)

    def start_time(self, pid: int) -> int:
        """0: not known."""
        try:
            return proc.start_time(pid)
        except OSError:
            return 0

    def ended(self, pid: int, started: int, status: int) -> None:
        """A child was reaped: a container's init, one that is still being launched, or a stranger's orphan."""
        for held in list(self._held.values()):
            if held.pid == pid and started in {0, held.started}:
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
            proc.remove(path)
        for stream in STREAMS:
            self._rest(name, stream).keep(b"", begun=False)

    def _write_exit(self, held: Held, status: int | None) -> None:
        """After the last log bytes, so that whoever sees the exit finds the whole log."""
        for stream in list(held.streams.values()):
            self._drain(stream)
        held.exited, held.gone_at = True, 0.0
        if status is None and self._is_told(held):
            self._drop_if_done(held)
            return
        code, number = (-1, 0) if status is None else proc.code_and_signal(status)
        value = {
            "pid": held.pid,
            "start_time": held.started,
            "boot_id": self._boot_id,
            "code": code,
            "signal": number,
            "at": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        }
        proc.write_json(f"{self._run_dir}/exits/{held.name}.json", value)
        self._drop_if_done(held)

    def _is_told(self, held: Held) -> bool:
        """A keeper before this one saw how it ended."""
        known = proc.read_json(f"{self._run_dir}/exits/{held.name}.json")
        return [known.get(key) for key in ("pid", "start_time")] == [held.pid, held.started]

    def _settle(self, name: str, inodes: list[int]) -> None:
        if self._expected.get(name) == inodes:
            del self._expected[name]

    def _open_book(self, name: str, known: dict[str, Any]) -> Logbook:
        log = known["log"]
        return Logbook(f"{self._log_dir}/{name}", log["max_bytes"], log["files"])

    def _listen(self, held: Held, stdout: int, stderr: int, *, goes_on: bool) -> None:
        for name, descriptor in zip(STREAMS, (stdout, stderr), strict=True):
            key, kept = held.name.encode() + b"/" + name, self._rest(held.name, name)
            stream = Stream(key, descriptor, held.book, kept, self._unwritten, goes_on=goes_on)
            if stream.waits:
                self._unfinished.add(stream)
            if descriptor >= 0:
                held.streams[descriptor] = stream
                self._by_descriptor[descriptor] = held
                self._epoll.register(descriptor, select.EPOLLIN)

    def _drain(self, stream: Stream) -> bool:
        goes_on = stream.drain()
        (self._unfinished.add if stream.waits else self._unfinished.discard)(stream)
        return goes_on

    def _close_stream(self, held: Held, descriptor: int) -> None:
        held.streams[descriptor].finish()
        self._unfinished.discard(held.streams[descriptor])
        self._epoll.unregister(descriptor)
        del held.streams[descriptor], self._by_descriptor[descriptor]
        os.close(descriptor)

    def _drop_if_done(self, held: Held) -> None:
        if not held.streams and (held.exited or not held.pid):
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
        self._remove_known(name, held.known["pipes"])

    def _remove_known(self, name: str, inodes: list[int]) -> None:
        """Unless the file is about another run by now."""
        if proc.read_json(self._known(name)).get("pipes") == inodes:
            proc.remove(self._known(name))

    def _rest(self, name: str, stream: bytes) -> Rest:
        return Rest(f"{self._run_dir}/pipes/{name}.{stream.decode()}")

    def _known(self, name: str) -> str:
        return f"{self._run_dir}/pipes/{name}.json"


def _known(request: dict[str, Any], pid: int, started: int, stdout: int, stderr: int) -> dict[str, Any]:
    kept = {key: request[key] for key in ("members", "log", "pid_file")}
    return {"pid": pid, "started": started, "pipes": _inodes(stdout, stderr), **kept}


def _init(pid: int, started: int) -> dict[str, int]:
    return {"pid": pid, "started": started} if pid else {}


def _inodes(stdout: int, stderr: int) -> list[int]:
    return [os.fstat(stdout).st_ino, os.fstat(stderr).st_ino]


def _born(known: dict[str, Any], members: list[int]) -> dict[str, int]:
    """What the runtime has written of init by now; it counts only inside the container's cgroup."""
    text = proc.read(known.get("pid_file", "")).strip()
    pid = int(text) if text.isdigit() else 0
    return _init(pid, proc.start_time(pid)) if pid in members else {}


def _open_ends(known: dict[str, Any], members: list[int], descriptors: list[int]) -> tuple[int, list[int]]:
    """Init's pidfd and the read ends of the pipes, those that are given first; -1: there is none any more.

    If `known` does not tell who init is, it does afterwards when that can be found out.
    """
    pidfd = -1
    try:
        if not known["pid"]:
            known.update(_born(known, members))
        pidfd = _open_init(known["pid"], known["started"])
        return pidfd, descriptors or proc.reopen_pipes([known["pid"], *members], known["pipes"])
    except OSError:
        proc.close([pidfd, *descriptors])
        raise


def _open_init(pid: int, started: int) -> int:
    """A pidfd of exactly this process; -1 when it has been reaped."""
    if not pid or proc.start_time(pid) != started:
        return -1
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
