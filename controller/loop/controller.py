"""The world as this process knows it: what is desired, who has to be looked at, and what came of it.

`reload` reads the source; `look` reconciles one name. The daemon and the one-shot `apply` both drive this.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from controller.aspects._base import Subject
from controller.errors import GuardRefused, MasuError, Problem, SourceUnreadable
from controller.host.ports import Conditions, EventLog, Host, LeaseStore, SourcePort, Store, Tracker
from controller.loop.backoff import FIGHT_LOOK_S, Fight, after_repairs, retry_delay
from controller.loop.door import Door
from controller.loop.ladder import Ladder
from controller.loop.notices import Noticing
from controller.loop.probes import Probing
from controller.loop.pulls import Pulls
from controller.loop.queue import WorkQueue
from controller.loop.warden import Warden
from controller.model.attachment import Leases
from controller.model.desired import DesiredSet, FileState
from controller.model.event import Event
from controller.model.resource import CONTAINER, FIREWALL, GROUP, INSTANCE, VOLUME, key_of, kind_of
from controller.model.status import HOST_LACKS, LIMITED, Condition
from controller.reconcile import guard
from controller.reconcile.desired import Desired, Known, Named, Wish, desire, guarantee, resolve
from controller.reconcile.leases import without
from controller.reconcile.plan import present, recorded, subject_of
from controller.reconcile.reconciler import Reconciler, Result, awaiting, waiting
from controller.report import narrate
from controller.spec.accept import Parse, accept, freeze, whole
from controller.steps._base import Wait
from controller.steps.runtime import FOR_PEOPLE

NEEDS_LOOK_MS = 1000
BROKEN_LOOK_S = 2.0
BUSY_LOOK_S = 1.0
WAITS = {GROUP: "WaitsForGroup", VOLUME: "WaitsForVolume"}
TOLD = frozenset({"Refused", HOST_LACKS, LIMITED, "NotAsDesired"})
"""Types of conditions that no step tells of: said once, when they come. So are those that a person has to end."""


@dataclass(slots=True)
class Memory:
    """What is remembered of one name between looks; none of it is truth, all of it may be lost."""

    failures: int = 0
    hold_until: float = 0.0
    looked_at: float = 0.0
    fight: Fight = field(default_factory=Fight)
    digest: str = ""
    converged: bool = False
    done: bool = False
    """Nothing is left to do, whether or not all is as it should be."""
    hopeless: bool = False
    broken: bool = False
    """No step can put it right, but somebody else may."""
    exit_code: int = 1
    conditions: tuple[Condition, ...] = ()


class Controller:
    """Thread-safe: `look` may run for different names at once; the queue never hands one name out twice."""

    def __init__(
        self,
        host: Host,
        reconciler: Reconciler,
        named: Named,
        source: SourcePort,
        store: Store,
        leases: LeaseStore,
        door: Door,
        warden: Warden,
        ladder: Ladder,
        pulls: Pulls,
        conditions: Conditions,
        log: EventLog,
        tracker: Tracker,
        notices: Noticing,
        probes: Probing,
        parse: Parse,
        queue: WorkQueue,
        *,
        allow_removals: bool,
        atomic: bool,
        node: str,
    ) -> None:
        self._host, self._reconciler, self._named = host, reconciler, named
        self._source, self._store, self._parse = source, store, parse
        self._conditions, self._log, self._tracker = conditions, log, tracker
        self._notices, self.probes = notices, probes
        self._allow_removals, self._atomic, self._node = allow_removals, atomic, node
        self._lock = threading.Lock()
        self._taking = threading.Lock()  # held by whoever changes what is desired, or who has which lease
        self._set = store.load()
        self._lease_store = leases
        self._leases = leases.load()
        self._door, self.warden, self._ladder, self.pulls = door, warden, ladder, pulls
        self._saved = True
        self._desired: dict[str, Desired] = {}
        self._digests: dict[str, str] = {}
        self._wishes: dict[str, Wish] = {}
        self._made: Known = {}
        self._sharers: tuple[Desired, ...] = ()
        self._doomed: set[str] = set()
        self._memory: dict[str, Memory] = {}
        self.queue = queue
        self.refused: GuardRefused | None = None

    @property
    def taken(self) -> DesiredSet:
        """What is desired now."""
        return self._set

    def reload(self) -> None:
        """Read the source, keep what is good, and queue every name whose desired state changed.

        Raises StepFailed when that cannot be saved; the next call tries again.
        """
        before = self._set
        self.warden.refresh()
        after = self._accepted(before)
        if after.revision != before.revision:
            after = replace(after, since=self._host.clock.wall_ms())
        if after != before:
            self._tell_source(before, after)
        with self._taking:
            self._take(after)
        self._saved = self._saved and after == before
        if not self._saved:
            self._store.save(after)  # syncs to disk, while the workers are at it already
            self._saved = True

    def resync(self) -> None:
        """Look at everything, whether or not anybody nudged."""
        with self._lock:
            names = [*self._desired, *self._doomed]
        for name in names:
            self.queue.add(name)
        self.pulls.tidy()

    def retake(self) -> None:
        """What is desired is put together anew: an image has come."""
        with self._taking:
            self._take(self._set)

    def look(self, name: str) -> Result | None:
        """Reconcile one name; None while it is held back because a launch failed just now, or as long as what is to
        be removed is still being stored.

        In a fight over some of its keys those are left alone for a while, and the rest is looked at less often.
        """
        with self._lock:
            desired, doomed = self._desired.get(name), name in self._doomed
            if desired is None and not doomed:
                return None
            if desired is None and self._ladder.is_busy(name):
                self.queue.add_at(name, time.monotonic() + BUSY_LOOK_S)
                return None
            memory, digest = self._memory.setdefault(name, Memory()), self._digests.get(name, "")
        now = time.monotonic()
        edited = digest != memory.digest
        contested = () if edited or now >= memory.fight.until else memory.fight.contested(now)
        held_until = max(memory.hold_until, memory.looked_at + FIGHT_LOOK_S if contested else 0.0)
        if not edited and now < held_until:
            self.queue.add_at(name, held_until)
            return None
        result = self._door.judge(self._reconcile(name, desired, contested, edited=edited))
        result = self.pulls.remark(self.warden.remark(result))
        memory.looked_at = now
        self._after(name, desired, result, memory, edited=edited)
        memory.digest = digest
        self._settle(name, digest, result)
        return result

    def wanted(self, name: str) -> Desired | None:
        """What a key is to be, as far as it is known by now."""
        with self._lock:
            return self._desired.get(name)

    def containers(self) -> Mapping[str, Desired]:
        """What each container is to be, as far as it is known by now."""
        with self._lock:
            return {name: each for name, each in self._desired.items() if each.kind == CONTAINER}

    def restored(self, name: str) -> None:
        """Whoever borrowed it made its processes anew: look at it, and at who shares its namespaces."""
        for each in (name, *self._sharers_of(name)):
            self.queue.add(each)

    def settled(self) -> bool:
        """Everything desired has converged and everything doomed is gone."""
        with self._lock:
            waiting = [name for name in self._desired if not self._as_of_now(name).converged]
            return not waiting and not self._doomed and not self.pulls.busy()

    def stuck(self) -> bool:
        """Nothing is left to try: everything that has not converged needs somebody's help, not time."""
        with self._lock:
            names = {*self._desired, *self._doomed}
            return (
                self.queue.idle()
                and not self.pulls.busy()
                and all((memory := self._as_of_now(name)).converged or memory.hopeless for name in names)
            )

    def _as_of_now(self, name: str) -> Memory:
        """With the lock. What was seen of what it was before says nothing of what it is to be."""
        memory = self._memory.get(name)
        return memory if memory and memory.digest == self._digests.get(name, "") else Memory()

    def exit_code(self) -> int:
        """The exit code of the gravest thing that keeps a container from converging."""
        with self._lock:
            return max(
                (memory.exit_code for memory in self._memory.values() if not memory.converged), default=1
            )

    def failures(self) -> Mapping[str, tuple[Condition, ...]]:
        """Name → conditions of whatever has not converged."""
        with self._lock:
            names = [*self._desired, *self._doomed]
            return {
                name: memory.conditions
                for name in names
                if not (memory := self._memory.get(name, Memory())).converged
            }

    @property
    def rejected(self) -> tuple[Problem, ...]:
        return self._set.rejected

    @property
    def frozen(self) -> str:
        return self._set.frozen

    @property
    def stale(self) -> str:
        return self._set.stale

    def _accepted(self, before: DesiredSet) -> DesiredSet:
        try:
            found = self._source.snapshot()
        except SourceUnreadable as error:
            return freeze(before, str(error))
        judge = self.warden.judge
        after = accept(before, found, self._parse, self._host.facts.layout, judge, self._node)
        if self._atomic or found.atomic:
            after = whole(before, after)
        return self._guarded(before, after)

    def _guarded(self, before: DesiredSet, after: DesiredSet) -> DesiredSet:
        """A mass removal freezes the source as a whole: half of an accident is an accident, too."""
        present = recorded(self._host) | set(before.containers)
        removed = frozenset[str]() if after.frozen else present - set(after.containers)
        try:
            moved = before.source, after.source
            guard.check_removals(present, removed, allowed=self._allow_removals, moved=moved)
        except GuardRefused as error:
            self.refused = error
            return freeze(before, str(error))
        self.refused = None
        return after

    def _take(self, after: DesiredSet) -> None:
        left = present(self._reconciler.root, self._host)
        leaving = left - set(after.resources)
        images = self.pulls.expect(after.resources)
        wanted, leases = resolve(self._named, after.resources, self._leases, leaving, self._made, images)
        gone = set[str]() if after.frozen else set(left) - set(wanted)
        wanted, stirred = self._door.decide(after.resources, wanted, left)
        stirred |= self.warden.settle(after.resources)
        guaranteed = guarantee(self._named, after.resources, self._door.waiting)
        wanted[guaranteed.key] = guaranteed
        digests = {
            key: self._digests[key] if self._wishes.get(key) is each and key in self._digests else each.digest
            for key, each in wanted.items()
        }
        changed = {key for key in wanted if self._digests.get(key) != digests[key]}
        desired = {key: each for key in changed if (each := self._wish(wanted[key]))}
        self._give(leases)  # before anybody uses them
        self._host.audit.revise(after.revision)
        with self._lock:
            self._set = after
            for key in [*self._desired]:
                if key not in wanted:
                    del self._desired[key], self._digests[key], self._wishes[key]
            self._desired.update(desired)
            self._sharers = tuple(each for each in self._desired.values() if each.frame.partners)
            self._digests.update({key: digests[key] for key in desired})
            self._wishes.update({key: wanted[key] for key in desired})
            self._doomed = gone
        self._conditions.keep({*wanted, *gone})  # whoever buried the last one may have been killed at it
        for key in (*sorted(gone), *_in_order(changed | stirred, self._desired)):
            self.queue.add(key)
        self._door.save()  # while the workers are at it already: who runs without it is known by that

    def _wish(self, wish: Wish) -> Desired | None:
        """None, and told, when masu itself is at fault: the others go on, and this one as it was."""
        try:
            return desire(wish, self._host.facts)
        except Exception as error:  # noqa: BLE001
            self._log.event(defect(wish.key, error, self._host))
            return None

    def _give(self, leases: Leases) -> None:
        if leases != self._leases:
            self._lease_store.save(leases)
            self._leases = leases

    def _reconcile(
        self, name: str, desired: Desired | None, leave: Collection[str], *, edited: bool
    ) -> Result:
        if desired is None:
            self._notices.forget(name)
            self.probes.forget(name)
            self._ladder.forget(name)
            return self._reconciler.remove(name)
        barred = self.warden.held(name) if desired.kind == CONTAINER else None
        if barred:  # a link may lead elsewhere than it did
            leave = {*leave, *(f"mounts.{each.target}" for each in desired.parts.get("mounts", ()))}
        held, pulled = self._held(desired, barred), self.pulls.held(name)
        climb = self._ladder.for_(desired) if held is None and pulled is None else None
        if climb is None:
            result = self._reconciler.converge(desired, self._watch, leave, held)
            return awaiting(result, pulled) if pulled else result
        result = self._reconciler.converge(desired, self._watch, leave, None, climb.turn)
        if not result.turned:
            self._ladder.forget(name)
            return result
        self._narrate(result, edited=edited)
        if wait := climb.go():
            return waiting(result, wait)
        for sharer in self._sharers_of(name):  # its namespaces are new ones
            self.queue.add(sharer)
        return self._reconciler.converge(desired, self._watch, leave)

    def _watch(self, name: str, group: str) -> None:
        """Whatever is not watched by now is watched after the look, and then looked at once more."""
        with suppress(MasuError, OSError):
            self._track(name, self.wanted(name), subject_of(name, group, self._host))

    def _held(self, desired: Desired, barred: Wait | None) -> Wait | None:
        """Nobody is born who is not allowed, nor without room, nor before groups, volumes, networks and their rules
        are in place.
        """
        if desired.kind == CONTAINER and (wait := barred or self._door.held(desired.name)):
            return wait
        with self._lock:
            unmet = [key for key in sorted(desired.needs) if not self._memory.get(key, Memory()).done]
        if not unmet:
            return None
        until = self._host.clock.now_ms() + NEEDS_LOOK_MS
        reason = WAITS.get(kind_of(unmet[0]), "WaitsForNetwork")
        return Wait(reason, f"waits for {', '.join(unmet)}", until)

    def _after(
        self, name: str, desired: Desired | None, result: Result, memory: Memory, *, edited: bool
    ) -> None:
        """Report, remember, and say when to look again."""
        self._report(result, memory, edited=edited)
        if result.gone and name in self._doomed:
            self._bury(name)
            return
        self._nudge_sharers(name, result)
        self._nudge_instance(result)
        self._nudge_dependents(name, result)
        subject = result.last.subject
        if self._track(name, desired, subject):
            self.queue.add(name)
        if desired and desired.kind == CONTAINER:
            notices, sampled = desired.notices, desired.throttles
            self._notices.expect(name, subject.group, subject.init, notices, sampled=sampled)
            disturbed = any(each.step.kind == "SetFreezer" for each in result.outcomes)
            self.probes.expect(name, subject.group, subject.init, desired.health, disturbed=disturbed)
        now = time.monotonic()
        if result.error and result.error.retry:
            self._try_later(name, memory, now, runs=bool(subject.pid))
        elif not result.error:
            memory.failures, memory.hold_until = 0, 0.0
        if result.last.broken:
            self.queue.add_at(name, now + BROKEN_LOOK_S)
        elif memory.broken and desired:
            for key in desired.needs:  # they may do now what they could not
                self.queue.add(key)
        memory.broken = bool(result.last.broken)
        if result.again_at:
            self.queue.add_at(name, now + max(0, result.again_at - self._host.clock.now_ms()) / 1000)

    def _track(self, name: str, desired: Desired | None, subject: Subject) -> bool:
        """Whether something is watched that was not: it may have changed since it was looked at."""
        links = desired.links if desired else ()
        if kind_of(name) == FIREWALL:
            return self._tracker.watch_firewall(name)
        if kind_of(name) in {GROUP, INSTANCE}:
            return self._tracker.watch_group(name, subject.group)
        if kind_of(name) == VOLUME:
            return self._tracker.watch_host_mounts(name)
        if kind_of(name) != CONTAINER:
            return self._tracker.watch_network(name, None, links)
        fresh = self._tracker.watch_group(name, subject.group)
        if desired and desired.watches_network:
            fresh |= self._tracker.watch_network(name, name, links)
        else:
            self._tracker.watch_network(name, None, ())
        if desired and desired.watches_mounts:
            fresh |= self._tracker.watch_mounts(name, subject.pid)
        fresh |= self._tracker.watch_devices(name, wanted=bool(desired and desired.watches_devices))
        self._tracker.watch_init(name, subject.pid)
        return fresh

    def _settle(self, name: str, digest: str, result: Result) -> None:
        """Whoever waits for room may have what this one does not need any more."""
        if kind_of(name) != CONTAINER or not self._door.differs(name, digest, result):
            return
        with self._taking:
            if self._digests.get(name) == digest and self._door.differs(name, digest, result):
                if self._door.settle(name, digest, result):
                    self._take(self._set)
                self._door.save()

    def _nudge_dependents(self, name: str, result: Result) -> None:
        """Whoever waits for a network or a volume, or hangs on what has just been made anew."""
        if kind_of(name) == CONTAINER or not result.outcomes:
            return
        with self._lock:
            dependents = [each.name for each in self._desired.values() if name in each.needs]
        for each in dependents:
            self.queue.add(each)

    def _nudge_instance(self, result: Result) -> None:
        """The groups above have to be told of a container that is new in them."""
        if not any(each.step.kind in {"CreateCgroup", "MoveCgroup"} for each in result.outcomes):
            return
        key = key_of(INSTANCE, self._named.instance)
        with self._lock:
            self._memory.setdefault(key, Memory()).converged = False
        self.queue.add(key)

    def _nudge_sharers(self, name: str, result: Result) -> None:
        """Whoever shares a namespace with a container that has just been started has to follow it."""
        if any(each.step.kind in {"LaunchContainer", "FinishLaunch"} for each in result.outcomes):
            for sharer in self._sharers_of(name):
                self.queue.add(sharer)

    def _sharers_of(self, name: str) -> list[str]:
        with self._lock:
            return [each.name for each in self._sharers if name in each.frame.partners]

    def _try_later(self, name: str, memory: Memory, now: float, *, runs: bool) -> None:
        """A failed launch makes nudges itself, by entering its cgroups: those must not shorten the back-off.

        A container that runs is looked at with every nudge all the same: one bad key holds back no repair.
        """
        memory.failures += 1
        again = now + retry_delay(memory.failures)
        memory.hold_until = 0.0 if runs else again
        self.queue.add_at(name, again)

    def _report(self, result: Result, memory: Memory, *, edited: bool) -> None:
        self._narrate(result, edited=edited)
        at = self._host.clock.wall_ms()
        conditions = result.conditions
        if not edited and result.last.lives:
            repaired = [
                each.step.change[0] for each in result.outcomes if each.step.change and not each.error
            ]
            conditions = (*conditions, *self._judge_fight(result.container, memory, repaired))
        if conditions != memory.conditions or result.converged != memory.converged:
            self._conditions.save(result.container, conditions)
        told = {(each.type, each.reason) for each in memory.conditions}
        for each in conditions:
            if (each.type in TOLD or each.reason in FOR_PEOPLE) and (each.type, each.reason) not in told:
                self._log.event(Event(at, result.container, each.reason, each.message, level="warning"))
        memory.conditions, memory.converged = conditions, result.converged
        memory.done = not (result.last.steps or result.error)
        memory.exit_code = result.exit_code
        memory.hopeless = (
            not result.converged and not result.again_at and not (result.error and result.error.retry)
        )

    def _narrate(self, result: Result, *, edited: bool) -> None:
        for event in narrate.events(result, edited=edited, at=self._host.clock.wall_ms()):
            self._log.event(event)

    def _judge_fight(self, name: str, memory: Memory, repaired: list[str]) -> tuple[Condition, ...]:
        now = time.monotonic()
        before, memory.fight = memory.fight, after_repairs(memory.fight, repaired, now)
        contested = memory.fight.contested(now) if memory.fight.level else ()
        if not contested:
            return ()
        message = f"something else keeps changing {', '.join(contested)}; repairs are slowed down"
        if memory.fight.level > before.level:
            at = self._host.clock.wall_ms()
            self._log.event(Event(at, name, "Contested", message, key=contested[0], level="warning"))
            self.queue.add_at(name, memory.fight.until)
        return (Condition("Contested", status=True, reason="RepairFight", message=message),)

    def _bury(self, name: str) -> None:
        """Forget it, unless it was asked for again meanwhile."""
        with self._taking:
            with self._lock:
                if name not in self._doomed:
                    return
                self._doomed.discard(name)
                last = not self._doomed
                self._memory.pop(name, None)
                starved = any(each.starves for each in self._desired.values())
            self._tracker.untrack(name)
            self._conditions.remove(name)
            self.pulls.forget(name)
            self._give(without(self._leases, name))
            if self._door.forget(name) or starved:
                self._take(self._set)
            elif last:  # what nobody asks for any more is not promised: that can wait for the others
                self._door.save()

    def _tell_source(self, before: DesiredSet, after: DesiredSet) -> None:
        at = self._host.clock.wall_ms()
        for problem in after.rejected:
            if problem not in before.rejected:
                self._log.event(Event(at, "", "Rejected", str(problem), level="error"))
        mended = {each.file for each in before.rejected} - {each.file for each in after.rejected}
        for file in sorted(mended & set(after.files)):
            said = mended_words(before.files.get(file), after.files[file])
            self._log.event(Event(at, "", "Accepted", f"{file} {said}"))
        if after.commit and after.revision != before.revision:
            change = {"key": "revision", "old": before.revision, "new": after.revision}
            self._log.event(Event(at, "", "Revision", after.commit.title, **change))
        if after.silence and after.silence != before.silence:
            self._log.event(Event(at, "", "SourceFrozen", after.silence, level="warning"))
        if before.silence and not after.silence:
            self._log.event(Event(at, "", "SourceBack", "the source is followed again"))


def _in_order(changed: set[str], desired: Mapping[str, Desired]) -> list[str]:
    """Whoever is needed or shared with comes first, so that the others need not wait and look again."""

    def rank(key: str) -> tuple[bool, bool, str]:
        each = desired.get(key)
        return bool(each and each.frame.partners), kind_of(key) == CONTAINER, key

    return sorted(changed, key=rank)


def defect(name: str, error: Exception, host: Host) -> Event:
    """What nobody has foreseen, so that somebody reports it."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    at = "".join(f" at {each.filename.rpartition('/')[2]}:{each.lineno}" for each in where)
    message = f"defect in masu: {type(error).__name__}: {error}{at}"
    return Event(host.clock.wall_ms(), name, "Defect", message, level="error")


def work(controller: Controller, unexpected: EventLog, host: Host) -> None:
    """One worker: look at names until the queue is closed. A defect in one look must not end the worker."""
    while (name := controller.queue.get()) is not None:
        try:
            controller.look(name)
        except MasuError as error:
            unexpected.event(Event(host.clock.wall_ms(), name, error.reason, str(error), level="warning"))
            controller.queue.add_at(name, time.monotonic() + 1)
        except Exception as error:  # noqa: BLE001
            unexpected.event(defect(name, error, host))
            controller.queue.add_at(name, time.monotonic() + 5)
        finally:
            controller.queue.done(name)


def mended_words(before: FileState | None, after: FileState) -> str:
    """Pure. What is to be said of a file with which nothing is wrong any more."""
    if not after.resources:
        return "is no longer rejected"
    return "is in force again" if before and before.resources else "is in force"
