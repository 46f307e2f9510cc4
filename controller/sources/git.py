"""A git repository as a source: fetched every so often and when somebody asks, read from its objects.

Silence is not deletion: of a repository that cannot be asked, or whose newest revision is refused, the last good
revision stays in force, also across restarts.
"""

from __future__ import annotations

import hashlib
import os
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace

from controller.errors import Problem, SourceUnreadable, SpecInvalid
from controller.frozen import dataclass
from controller.model.snapshot import Commit, Snapshot, SourceFile
from controller.sources.git_process import Git, GitFailed, GitOptions, Unavailable
from controller.sources.git_repository import CURRENT, Damaged, Repository, Vanished
from controller.sources.git_tree import Unfit
from controller.sources.git_url import GitUrl
from controller.sources.layers import stacked

FIRST_S = 10.0
"""How long the first look waits for the first fetch: containers that ran before are kept meanwhile in any case."""
HEARD_S = 0.2
"""A signal that comes just before a wait is heard after it."""

STOP, NOW = "stop", "now"


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the source. `found`: the last good revision; `refused`: why the newest is not in force;
    `silent`: why the repository could not be asked, or has nothing there."""

    found: Snapshot | None = None
    refused: str = ""
    silent: str = ""


class GitSource:
    """Thread-safe. `below`: the directory of all copies; the caller holds the instance that it belongs to."""

    def __init__(
        self,
        url: GitUrl,
        options: GitOptions,
        below: str,
        every_s: float = 60.0,
        doubt: Callable[[], str] = lambda: "",
    ) -> None:
        """`doubt`: why nothing may be fetched for now, in words. Asked before each fetch, also in other threads."""
        self._every_s, self._doubt = every_s, doubt
        self._url, self._options = url, options
        self._below, self._name = below, hashlib.sha256(url.place.encode()).hexdigest()[:16]
        self._git = Git(f"{below}/{self._name}", url, options)
        self._repository = Repository(f"{below}/{self._name}", url, self._git)
        self._known = _Known()
        self._asked = threading.Event()  # somebody has asked the repository, or it is no use to wait for that
        self._followed = False
        self._lock = threading.Lock()  # held by whoever works on the copy

    def snapshot(self) -> Snapshot:
        """What was fetched last. Fetches where nobody else does. Raises SourceUnreadable where nothing is good."""
        if not self._followed:
            self.refresh()
        elif self._known.found is None:
            self._asked.wait(FIRST_S)
        known = self._known
        if known.found is None:
            raise SourceUnreadable(
                f"source {self._url}: {known.silent or known.refused or 'not fetched yet'}"
            )
        problems = known.found.unreadable
        if known.refused:
            problems = (*problems, Problem(str(self._url), 0, 0, "", known.refused))
        stale = f"source {self._url}: {known.silent}" if known.silent else ""
        return replace(known.found, unreadable=problems, stale=stale)

    def refresh(self) -> bool:
        """Fetch now. → whether anything is to be said that was not."""
        with self._lock:
            before = self._known
            try:
                self._known = self._asking(before if before.found else self._remembered(before))
            except Unavailable as error:
                self._known = _Known(before.found, before.refused, f"cannot be fetched: {error}")
            self._asked.set()
            return self._known != before

    def wait_no_more(self) -> None:
        """The first look goes without a fetch, if it has to."""
        self._asked.set()

    def kill(self) -> None:
        """Whatever is being fetched is broken off, and nobody waits for it."""
        self.wait_no_more()
        self._git.kill()

    def sync(self) -> Commit | None:
        """Fetch now. → the revision that is in force. Raises SourceUnreadable where the newest is not."""
        self.refresh()
        known = self._known
        if known.silent or known.refused or known.found is None or known.found.commit is None:
            raise SourceUnreadable(f"source {self._url}: {known.silent or known.refused or 'broken off'}")
        return known.found.commit

    def watch(self, nudge: Callable[[], None]) -> GitWatch:
        """Fetch about every `every_s` seconds, and call `nudge` when that has brought anything."""
        self._followed = True
        with self._lock, suppress(Unavailable):
            self._known = self._remembered(self._known)
        return GitWatch(self, nudge, self._every_s)

    def _remembered(self, before: _Known) -> _Known:
        """The last good revision of an earlier masu, if it would be good today."""
        try:
            commit = self._repository.commit_at(CURRENT)
            return _Known(self._read(commit)) if commit else before
        except (Damaged, Unfit, Vanished, GitFailed):
            return before

    def _asking(self, before: _Known) -> _Known:
        why = self._doubt()
        if why:
            return _Known(before.found, before.refused, f"it {why}")
        try:
            return self._fetched(before)
        except Damaged as damaged:
            self._repository.discard()
            return self._again(before, str(damaged))
        except (GitFailed, OSError) as error:
            if self._is_usable():
                return _Known(before.found, before.refused, f"cannot be fetched: {_said(error)}")
            self._repository.discard()
            return self._again(before, _said(error))

    def _again(self, before: _Known, why: str) -> _Known:
        """With a new copy."""
        try:
            return self._fetched(before)
        except (Damaged, GitFailed, OSError) as error:
            return _Known(
                before.found,
                before.refused,
                f"cannot be fetched: {_said(error)} (the copy was damaged: {why})",
            )

    def _is_usable(self) -> bool:
        """Whether a failure cannot be blamed on the copy."""
        try:
            return not self._repository.commit_at(CURRENT) or self._repository.is_whole()
        except (Damaged, GitFailed):
            return False

    def _fetched(self, before: _Known) -> _Known:
        """Raises Damaged, GitFailed and OSError."""
        commit = self._repository.fetch()
        if before.found and before.found.revision == commit:
            return _Known(before.found)
        try:
            found = self._read(commit)
        except Vanished as vanished:
            return _Known(before.found, "", f"{self._repository.describe(commit).title}: {vanished}")
        except Unfit as unfit:
            return _Known(
                before.found, f"{self._repository.describe(commit).title} is refused: {unfit}{_kept(before)}"
            )
        if found.files:
            self._repository.keep(commit)
            self._forget_others()
        return _Known(found)

    def _read(self, commit: str) -> Snapshot:
        """Raises Unfit, Vanished, Damaged."""
        if self._options.signers:
            self._repository.check_signature(commit, self._options.signers)

        def look(directory: str) -> Snapshot:
            content = self._repository.content(commit, directory)
            files = tuple(
                SourceFile(path, text, hashlib.sha256(text).hexdigest())
                for path, text in sorted(content.texts.items())
            )
            return Snapshot(commit, files, content.problems, described, source=self._url.home)

        described = self._repository.describe(commit)
        try:
            return stacked(self._url.directory, look, inside=True)[0]
        except SpecInvalid as error:
            raise Unfit(str(error)) from error

    def _forget_others(self) -> None:
        """Copies of what was the source before."""
        for name in os.listdir(self._below):
            if name != self._name:
                shutil.rmtree(f"{self._below}/{name}", ignore_errors=True)


class PassingGitSource:
    """For a look that keeps nothing: the copy is a temporary directory, and goes at once."""

    def __init__(self, url: GitUrl, options: GitOptions) -> None:
        self._url, self._options = url, options

    def snapshot(self) -> Snapshot:
        """Raises SourceUnreadable, also where only an older revision is good."""
        with tempfile.TemporaryDirectory(prefix="masu-git-") as below, ThreadPoolExecutor(1) as aside:
            source = GitSource(self._url, self._options, below)
            try:
                found = aside.submit(source.snapshot)
                while not wait((found,), HEARD_S).done:
                    pass  # a signal may end this at any moment
                return found.result()
            finally:
                source.kill()


class GitWatch:
    """A thread that fetches until `close`."""

    def __init__(self, source: GitSource, nudge: Callable[[], None], every_s: float) -> None:
        self._source, self._nudge, self._every_s = source, nudge, every_s
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name="fetch", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Fetch now."""
        self._inbox.put(NOW)

    def wait_no_more(self) -> None:
        """masu is to end: the first look does not wait for the first fetch."""
        self._source.wait_no_more()

    def close(self) -> None:
        """What is being fetched is broken off; the next masu fetches it."""
        self._inbox.put(STOP)
        self._source.kill()
        self._thread.join(5)

    def _follow(self) -> None:
        while True:
            try:
                if self._source.refresh():
                    self._nudge()
            except Exception:  # noqa: BLE001  a defect in one fetch must not be the last one
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            if self._stopped():
                return

    def _stopped(self) -> bool:
        """Waits until it is time; a fleet that was started together must not fetch together for ever."""
        until = time.monotonic() + self._every_s * random.uniform(0.8, 1.2)  # noqa: S311
        try:
            return self._inbox.get(timeout=max(0.0, until - time.monotonic())) == STOP
        except queue.Empty:
            return False


def _kept(before: _Known) -> str:
    commit = before.found.commit if before.found else None
    return f"; {commit.title} stays in force" if commit else ""


def _said(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
