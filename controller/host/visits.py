"""A thread that enters other processes' namespaces to do one piece of work, and always comes home.

It decides nothing about the work. No other thread of masu ever changes namespace; a thread that cannot come
home, or does not in time, is retired and another takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.proc_stat import stat_of
from controller.host.syscalls import CLONE_FS, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS

T = TypeVar("T")

PATIENCE_S: Final = 5.0
NAMESPACE_NAMES: Final = {CLONE_NEWNET: "net", CLONE_NEWIPC: "ipc", CLONE_NEWUTS: "uts", CLONE_NEWNS: "mnt"}


@dataclass(frozen=True, slots=True)
class Home:
    """Where the thread belongs: descriptors of its namespaces and root directory, saved at the start."""

    namespaces: dict[int, int]
    root: int

    @classmethod
    def here(cls) -> Home:
        """The calling thread's present home, which it gets its own fs_struct for; see close."""
        syscalls.unshare(CLONE_FS)  # setns(2): a mount namespace cannot be entered with a shared fs_struct
        home = cls({}, os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            for kind, name in NAMESPACE_NAMES.items():
                home.namespaces[kind] = os.open(_own(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            home.close()
            raise
        return home

    def close(self) -> None:
        for descriptor in (*self.namespaces.values(), self.root):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Trip:
    """What a piece of work may do with the thread it runs on."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._entered = 0

    def enter(self, pid: int, kinds: int, start_time: int | None = None) -> None:
        """Enter these namespaces of a process at once; ProcessLookupError when it has ended.

        With `start_time` it must be the one that was started then: whoever changes something has to be sure.
        """
        if pid <= 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        descriptor = os.pidfd_open(pid)
        try:
            found = stat_of(pid) if start_time is not None else None
            if start_time is not None and (found is None or found.start_time != start_time):
                raise ProcessLookupError(errno.ESRCH, f"pid {pid} is another process by now")
            syscalls.setns(descriptor, kinds)
            self._entered |= kinds
        finally:
            os.close(descriptor)

    def enter_kept(self, descriptor: int, kind: int) -> None:
        """Enter a namespace that is open; OSError EINVAL when it is of another kind."""
        syscalls.setns(descriptor, kind)
        self._entered |= kind

    def leave_for_new(self, kind: int) -> None:
        """Make a namespace of this kind, and be in it."""
        syscalls.unshare(kind)
        self._entered |= kind

    def abroad(self, kind: int) -> bool:
        """Whether the thread is now in another namespace of this kind than masu's own.

        Asked of masu's own /proc: the one of a container with a pid namespace does not know this thread.
        """
        own = os.fstat(self._home.namespaces[kind])
        here = _own(NAMESPACE_NAMES[kind]).lstrip("/")
        return os.stat(here, dir_fd=self._home.root).st_ino != own.st_ino

    def back(self) -> None:
        """Return to every namespace that was left; OSError when it cannot be done."""
        for kind, descriptor in self._home.namespaces.items():
            if kind & self._entered:
                syscalls.setns(descriptor, kind)
        if self._entered & CLONE_NEWNS:  # setns(2) also moved the root directory to the namespace's topmost
            os.fchdir(self._home.root)
            os.chroot(".")


def _own(name: str) -> str:
    return f"/proc/thread-self/ns/{name}"


class _Job:
    """Work and its answer; who acquires `claim` decides: the visitor to do it, or the caller to give up."""

    def __init__(self, work: Callable[[Trip], Any]) -> None:
        self.work = work
        self.claim = threading.Lock()
        self.visitor: _Visitor | None = None
        self.answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()


class _Visitor:
    """One daemon thread that takes jobs until it is retired."""

    def __init__(self, jobs: SimpleQueue[_Job]) -> None:
        self.retired = False
        self._jobs = jobs
        threading.Thread(target=self._serve, name="masu-visits", daemon=True).start()

    def _serve(self) -> None:
        home: Home | None = None
        while not self.retired:
            job = self._jobs.get()
            job.visitor = self
            if job.claim.acquire(blocking=False):
                home = self._answer(job, home)
        if home is not None:
            home.close()

    def _answer(self, job: _Job, home: Home | None) -> Home | None:
        result, failure = None, None
        try:
            home = home or Home.here()
            result = self._there_and_back(job.work, home)
        except BaseException as error:  # noqa: BLE001  the caller gets it, whatever it is
            failure = error
        job.answer.put((result, failure))
        return home

    def _there_and_back(self, work: Callable[[Trip], T], home: Home) -> T:
        trip = Trip(home)
        try:
            return work(trip)
        finally:
            try:
                trip.back()
            except OSError:
                self.retired = True  # takes no more jobs; whoever waited for this one starts a successor


class Visits:
    """Hands work to the visiting thread and waits for it, from any number of threads."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._visitor: _Visitor | None = None

    def call(self, doing: str, work: Callable[[Trip], T]) -> T:
        """The work's result, or the error it raised; StepFailed when it takes longer than the patience."""
        job = _Job(work)
        self._staff()
        self._jobs.put(job)
        try:
            result, failure = self._await(job, doing)
        finally:
            self._staff()
        if failure is not None:
            raise failure
        answer: T = result
        return answer

    def _await(self, job: _Job, doing: str) -> tuple[Any, BaseException | None]:
        """Work not begun in time will not be; a thread stuck in it is left behind and ends when it can."""
        try:
            return job.answer.get(timeout=self._patience_s)
        except Empty:
            if not job.claim.acquire(blocking=False) and job.visitor is not None:
                job.visitor.retired = True
            raise StepFailed(f"{doing}: no answer in {self._patience_s:g} s") from None

    def _staff(self) -> None:
        """Jobs are in one queue, so a new thread goes on where a retired one stopped.

        Called by the waiting threads alone: a thread begins in the namespaces of the one that starts it.
        """
        if self._visitor is not None and not self._visitor.retired:
            return
        with self._lock:
            if self._visitor is None or self._visitor.retired:
                self._visitor = _Visitor(self._jobs)
