"""Fetches what containers are made of, in threads of its own: no repair waits for a registry.

A look only asks what has come of it. A container runs on from what it was born from, until what is to take its
place is here, whole. What cannot be had is tried again, less and less often.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from controller.errors import MasuError
from controller.host.ports import EventLog, Host, PinStore
from controller.loop.backoff import retry_delay
from controller.model.event import Event
from controller.model.image import Amount, Choice, Pin, Pins, Source, Want, parse_reference, short
from controller.model.quantity import about_bytes
from controller.model.resource import Resource
from controller.reconcile.apply import Failpoint
from controller.reconcile.audit import do
from controller.reconcile.images import Found, look_up, unused
from controller.reconcile.reconciler import Result, remarked
from controller.steps._base import Wait
from controller.steps.images import LOOK_MS, PULLING, FetchImage, RemoveImage

MOST_AT_ONCE = 4
MOST_OF_ONE = 2
"""Of one registry: one that never answers does not hold up the others."""
ASK_S = 30.0
TELL_S = 30.0
"""How often a long pull is told of."""
INITIAL_S, MAXIMUM_S = 1.0, 300.0
CLOSE_S = 5.0


@dataclass(slots=True, eq=False)
class Job:
    """One image for whoever wants it from there. `digest`: empty where the registry is to say which it is.

    `due`: on the monotonic clock. `said`: why it failed the last time.
    """

    source: Source
    digest: str
    names: set[str]
    due: float = 0.0
    failures: int = 0
    running: bool = False
    began: float = 0.0
    told_at: float = 0.0
    amount: Amount = field(default_factory=lambda: Amount("asking"))
    said: str = ""

    @property
    def hopeful(self) -> bool:
        """It is fetched, or asked for, and has not failed yet."""
        return self.running or not self.failures

    @property
    def registry(self) -> str:
        return parse_reference(self.source.reference).registry


class Pulls:
    """Thread-safe. `changed`: what is desired has to be put together anew; `nudge`: look at that container.

    `once`: by somebody who ends soon, and has what follows a tag asked for, whether or not its spec has changed.
    """

    def __init__(
        self,
        host: Host,
        failpoint: Failpoint,
        log: EventLog,
        store: PinStore,
        changed: Callable[[], object],
        nudge: Callable[[str], object],
        *,
        once: bool,
    ) -> None:
        self._host, self._failpoint, self._log, self._store = host, failpoint, log, store
        self._once = once
        self._changed, self._nudge = changed, nudge
        self._lock = threading.Condition()  # of all that follows; nobody waits for a registry with it
        self._pins: Pins | None = None
        self._found: dict[str, Found] = {}
        self._jobs: dict[tuple[Source, str], Job] = {}
        self._asked = set[str]() if once else None
        """Who has had it asked for since everybody was to; None: nobody was to."""
        self._threads: list[threading.Thread] = []
        self._untidy = self._closed = False
        self._going: frozenset[str] = frozenset()
        """Digests of those that are just being removed."""

    def expect(self, resources: Mapping[str, Resource]) -> Mapping[str, Choice]:
        """Which image each container has now; what is missing is fetched from now on."""
        with self._lock:
            self._found = look_up(resources, self._loaded, self._host, self._going)
            for job in self._jobs.values():
                job.names.clear()
            if self._pins is not None:
                for name, each in [*self._found.items()]:
                    self._settle(name, each)
            for key in [key for key, job in self._jobs.items() if not (job.names or job.running)]:
                del self._jobs[key]
            return {name: each.choice for name, each in self._found.items()}

    def held(self, name: str) -> Wait | None:
        """Why its image is not here yet, in words; None: it is."""
        with self._lock:
            found = self._found.get(name)
            if found is None or found.choice.image:
                return None
            if found.hindrance:
                return Wait(*found.hindrance, 0)
            job = next((each for each in self._jobs.values() if name in each.names), None)
            now, soon = time.monotonic(), self._host.clock.now_ms() + LOOK_MS
            if job is None or not (job.running or job.said):
                return Wait(PULLING, f"{found.want.source.reference}: waits for other pulls", soon)
            if job.running:
                return Wait(PULLING, _progress(job, now), soon)
            left_s = max(0.0, job.due - now)
            when = "with the next apply" if self._once else f"in {left_s:.0f}s"
            message = f"{job.said}; tried again {when}"
            return Wait("PullFailed", message, self._host.clock.now_ms() + round(left_s * 1000) + 1)

    def remark(self, result: Result) -> Result:
        """With a word that nobody knows whether it has the image that its file means; it is left running."""
        with self._lock:
            found = self._found.get(result.container)
        doubt = found.doubt if found else None
        return remarked(result, *doubt) if doubt else result

    def ask_anew(self) -> None:
        """Whoever follows a tag has it asked for with the next `expect`."""
        self._asked = set()

    def forget(self, name: str) -> None:
        """It is gone, with every trace. What cannot be written down now is so with the next pin."""
        with self._lock, suppress(MasuError):
            if name in self._loaded():
                self._pins = {key: each for key, each in self._loaded().items() if key != name}
                self._store.save(self._pins)
        self.tidy()

    def tidy(self) -> None:
        """Images that nobody refers to go, when nothing is being fetched."""
        with self._lock:
            if not self._untidy and self._host.images.names():
                self._untidy = True
                self._begin()

    def busy(self) -> bool:
        """Whether something is fetched, or asked for, that has not failed yet."""
        with self._lock:
            return self._is_busy()

    def _is_busy(self) -> bool:
        return any(each.hopeful for each in self._jobs.values())

    def close(self) -> None:
        """Whatever is being fetched is given up, and removed; what takes longer is swept away at the next start."""
        with self._lock:
            self._closed = True
            threads = (*self._threads,)  # each takes itself out
            self._lock.notify_all()
        self._host.images.halt()
        until = time.monotonic() + CLOSE_S
        for each in threads:
            each.join(timeout=max(0.0, until - time.monotonic()))

    def _settle(self, name: str, each: Found) -> None:
        """Write down what it has, which it has not before that, and see to what it lacks."""
        want, digest = each.want, each.choice.digest
        noted = not digest or self._is_noted(name, want.source.reference, digest)
        if not noted:
            self._found[name] = replace(each, choice=Choice(digest))
        if want.asks and self._is_due(name, want):
            self._want(name, want.source, "")
        elif not noted or (each.choice.image is None and not each.misfit):  # which to have again is no help
            self._want(name, want.source, digest)

    def _is_noted(self, name: str, reference: str, digest: str) -> bool:
        """Whether it is on disk by now."""
        pin = self._loaded().get(name)
        if pin is None or pin.reference != reference:
            try:
                self._pin(name, Pin(reference, digest))
            except MasuError:
                return False
        return True

    def _is_due(self, name: str, want: Want) -> bool:
        pin = (self._pins or {}).get(name)
        anew = self._asked is not None and name not in self._asked
        return anew or pin is None or pin.spec != want.spec

    def _want(self, name: str, source: Source, digest: str) -> None:
        job = self._jobs.get((source, digest))
        if job is None:
            job = self._jobs[source, digest] = Job(source, digest, set())
        job.names.add(name)
        self._begin()

    def _pin(self, name: str, pin: Pin) -> None:
        """Raises StepFailed, and then nothing is as if it were pinned."""
        pins = {**self._loaded(), name: pin}
        self._store.save(pins)
        self._pins = pins

    def _loaded(self) -> Pins:
        """Raises StepFailed, each time anew: somebody may have restored it."""
        if self._pins is None:
            self._pins = self._store.load()
        return self._pins

    def _begin(self) -> None:
        self._threads = [each for each in self._threads if each.is_alive()]
        wanted = min(MOST_AT_ONCE, len(self._jobs) + self._untidy)
        if not self._closed and len(self._threads) < wanted:
            thread = threading.Thread(target=self._work, name="pull", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._lock.notify_all()

    def _work(self) -> None:
        while True:
            with self._lock:
                job = self._next()
                if job is None and not self._going:
                    self._threads.remove(threading.current_thread())
                    return
            if job is None:
                self._remove()
                continue
            try:
                self._run(job)
            finally:
                with self._lock:
                    job.running = False
                    self._lock.notify_all()

    def _next(self) -> Job | None:
        """None: there is nothing to do, or images are to be removed, since nobody fetches any."""
        while not self._closed:
            if self._untidy and not self._is_busy():
                self._untidy, self._going = False, self._unused()
                if self._going:
                    return None
            now, running = (
                time.monotonic(),
                Counter(each.registry for each in self._jobs.values() if each.running),
            )
            waiting = [
                each
                for each in self._jobs.values()
                if not each.running and (not each.registry or running[each.registry] < MOST_OF_ONE)
            ]
            ready = next((each for each in waiting if each.due <= now), None)
            if ready:
                ready.running, ready.began, ready.told_at = True, now, 0.0
                ready.amount = Amount("asking")
                return ready
            if not (waiting or self._untidy):
                return None
            self._lock.wait(min((each.due - now for each in waiting), default=None))
        return None

    def _run(self, job: Job) -> None:
        try:
            digest = job.digest or self._host.images.resolve(job.source, ASK_S)
            if self._host.images.look(digest) is None:
                told = partial(self._heard, job, digest)
                do(FetchImage(_one(job), job.source, digest, told), self._host, self._failpoint)
                took_s = time.monotonic() - job.began
                self._tell(job, "Pulled", f"{job.source.reference} ({short(digest)}) in {took_s:.1f}s")
            self._done(job, digest)
        except MasuError as error:
            self._fail(job, str(error))
        except Exception as error:  # noqa: BLE001  what is wrong with one must not end the others
            self._fail(job, f"defect in masu: {type(error).__name__}: {error}")

    def _done(self, job: Job, digest: str) -> None:
        """Everybody who waits for it has it from now on. It counts as running until that is so."""
        with self._lock:
            names = sorted(job.names)
            for name in names:
                found = self._found.get(name)
                if found and found.want.source == job.source:
                    before = (self._pins or {}).get(name)
                    self._pin(name, Pin(job.source.reference, digest, found.want.spec))
                    if self._asked is not None:
                        self._asked.add(name)
                    self._tell_move(name, before, job.source.reference, digest)
        self._changed()
        with self._lock:
            job.failures, job.said = 0, ""
            if not job.names:  # else somebody has come who wants the same
                self._jobs.pop((job.source, job.digest), None)
        for name in names:
            self._nudge(name)

    def _fail(self, job: Job, said: str) -> None:
        with self._lock:
            if self._closed:
                return
            job.failures += 1
            pause = retry_delay(job.failures, INITIAL_S, MAXIMUM_S)
            job.due, changed, job.said = time.monotonic() + pause, job.said != said, said
            if not job.names:
                self._jobs.pop((job.source, job.digest), None)
        if changed:
            self._tell(job, "PullFailed", f"{job.source.reference}: {said}", "warning")
        for name in sorted(job.names):
            self._nudge(name)

    def _heard(self, job: Job, digest: str, amount: Amount) -> None:
        now = time.monotonic()
        job.amount = amount
        if now - job.told_at >= TELL_S or not job.told_at:
            first = not job.told_at
            job.told_at = now
            self._tell(
                job, PULLING, f"{job.source.reference} ({short(digest)})" if first else _progress(job, now)
            )

    def _unused(self) -> frozenset[str]:
        """With the lock: whoever wants one of them from now on is told that it is not here."""
        try:
            return unused(self._loaded(), self._host) - {each.choice.digest for each in self._found.values()}
        except MasuError:
            return frozenset()

    def _remove(self) -> None:
        try:
            remove(self._going, self._host, self._failpoint, self._log)
        finally:
            with self._lock:
                self._going = frozenset()

    def _tell(self, job: Job, kind: str, message: str, level: str = "info") -> None:
        for name in sorted(job.names) or [""]:
            self._log.event(Event(self._host.clock.wall_ms(), name, kind, message, level=level))

    def _tell_move(self, name: str, before: Pin | None, reference: str, digest: str) -> None:
        if before and before.reference == reference and before.digest != digest:
            message = f"{reference} is {short(digest)} now, and was {short(before.digest)}"
            self._log.event(Event(self._host.clock.wall_ms(), name, "ImageMoved", message))


def remove(digests: Iterable[str], host: Host, failpoint: Failpoint, log: EventLog) -> None:
    """Those that somebody still has mounted stay until the next time."""
    for digest in sorted(digests):
        kind, said, level = "ImageRemoved", "nobody refers to it", "info"
        try:
            do(RemoveImage("", digest), host, failpoint)
        except MasuError as error:
            kind, said, level = "ImageKept", str(error), "warning"
        log.event(Event(host.clock.wall_ms(), "", kind, f"{digest}: {said}", level=level))


def _one(job: Job) -> str:
    return min(job.names, default="")


def _progress(job: Job, now: float) -> str:
    amount = job.amount
    of = f" of {about_bytes(amount.total, up=True)}" if amount.total else ""
    size = f" {about_bytes(amount.done, up=False)}{of}" if amount.done else ""
    return f"{job.source.reference}: {amount.doing}{size}, for {now - job.began:.0f}s"
