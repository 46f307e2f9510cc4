"""The container's life: born, stopped, ended, started again. One pure decision over what was observed.

A stop takes time, so it is a state in the record (`stopping`, with the moment of SIGKILL) and never a wait
inside a step: the next look goes on where this one ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.device import absent_in
from controller.model.facts import Facts
from controller.model.frame import Frame
from controller.model.image import short
from controller.model.launch import Ended, ExitRecord
from controller.model.quantity import parse_duration
from controller.model.record import UNHEALTHY, Exit, Record, StopRule
from controller.model.signals import signal_number
from controller.steps._base import Effect, Step
from controller.steps.devices import seek
from controller.steps.living import live_pid
from controller.steps.runtime import (
    AdoptContainer,
    Await,
    ClearRuntime,
    FinishLaunch,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    PrepareLayer,
    RecordExit,
    RemoveLayer,
    RemoveRecord,
    StopContainer,
    UpdateRecord,
    WriteBundle,
)
from controller.steps.secrets import lacking

EXIT_PATIENCE_MS = {"always": 300}
PATIENT_MS = 3_000
"""How long the keeper may take to write an exit code down, before the kernel is asked, which may not know it.

Longer where the restart policy depends on it: an init that the keeper did not start itself is reaped by
the host's pid 1, in its own time.
"""
LOOK_AGAIN_MS = 5
PATHS_LOOK_MS = 1000
PARTNER_LOOK_MS = 500
DEVICES_LOOK_MS = 1000
SIGKILL = 9


@dataclass(frozen=True, slots=True)
class Restart:
    """restart: policy and back-off; the back-off starts over after a run of `maximum_ms`."""

    policy: str
    initial_ms: int
    maximum_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    state: str
    frame: Frame
    stop: StopRule
    restart: Restart


@dataclass(frozen=True, slots=True)
class Seen:
    """`alive`: the recorded init runs. `started`: a pid that the runtime started but nobody recorded.
    `populated`: something is in the cgroup without a live init. `remembered`: the runtime knows this name.
    `traces`: bundle, log, exit record or leased ids are there. `launching`: the runtime is at it."""

    alive: bool
    started: int
    populated: bool
    remembered: bool
    traces: bool
    exit: ExitRecord | None
    oom_kills: int
    layer: str | None
    absent_partners: tuple[str, ...]
    launching: bool = False
    absent_paths: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    """Why secrets of a new start cannot be had."""
    absent_devices: tuple[str, ...] = ()
    end: Ended | None = None
    """Of the recorded init, as the kernel tells it: for when the keeper does not, because it was killed."""

    @property
    def leftovers(self) -> bool:
        """Something of an earlier run is in the way of a new one."""
        return self.populated or self.remembered


class Life:
    name = "life"
    section = "life"
    keys: Mapping[str, Effect] = {
        "restart": Effect.LIVE,
        "process.stop": Effect.LIVE,
        "state": Effect.LIVE,
    }

    def parse(self, section: Any, facts: Facts) -> Wanted:
        """Pure. `section`: {state, stop, restart, frame}, put together by `controller.reconcile.desired`."""
        del facts
        restart, stop = section["restart"] or {}, section["stop"] or {}
        backoff = restart.get("backoff", {})
        longest = parse_duration(str(backoff.get("max", "1m")))
        return Wanted(
            section["state"] or "running",
            section["frame"],
            StopRule(
                signal_number(stop.get("signal", "TERM")), parse_duration(str(stop.get("grace", "10s")))
            ),
            Restart(
                restart.get("policy", "always"),
                min(parse_duration(str(backoff.get("initial", "200ms"))), longest),
                longest,
            ),
        )

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only. Of a container that runs as recorded, nothing more needs to be known."""
        if subject.pid:
            layer = host.layers.state(subject.name)
            paths, why = _lacks(subject, host, desired)
            return Seen(True, 0, True, True, True, None, 0, layer, (), absent_paths=paths, lacking=why)
        known, told = host.runtime.state(subject.name, subject.group), host.runtime.exit_of(subject.name)
        return Seen(
            alive=False,
            started=known.pid,
            populated=host.cgroups.populated(subject.group),
            remembered=known.remembered,
            traces=known.traces or host.layers.range_of(subject.name) is not None,
            exit=told,
            oom_kills=_oom_kills(host, subject.group),
            layer=host.layers.state(subject.name),
            absent_partners=_absent(host, desired.frame.partners) if desired else (),
            launching=known.launching,
            absent_devices=_absent_devices(host, desired),
            end=_end(host, subject.record, told),
        )

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure."""
        if observed.alive and subject.record:
            return list(_while_alive(subject, desired, observed, subject.record))
        return list(_while_dead(subject, desired, observed))

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Stops first; the record goes last."""
        steps: list[Step] = []
        if observed.alive and subject.record:
            steps.extend(_stopping(subject, subject.record, "removed from the source", Effect.DELETE))
        elif observed.populated:
            steps.append(KillContainer(subject.name, subject.group, None, "nobody owns it", Effect.DELETE))
        if observed.layer is not None:
            steps.append(RemoveLayer(subject.name, Effect.DELETE))
        if observed.traces:
            steps.append(ForgetContainer(subject.name))
        if subject.record:
            steps.append(RemoveRecord(subject.name))
        return steps


def _end(host: Host, record: Record | None, told: ExitRecord | None) -> Ended | None:
    """Read-only. Asked only where the keeper does not tell how this run has ended."""
    if record is None or record.exit or _is_sure(_of_this_run(record, told)):
        return None
    return host.runtime.end_of(record.name, record.pid)


def _of_this_run(record: Record, told: ExitRecord | None) -> ExitRecord | None:
    return told if told and told.start_time == record.start_time else None


def _is_sure(told: ExitRecord | None) -> bool:
    """Of the keeper: it was there when the run ended."""
    return told is not None and told.code >= 0


def _lacks(subject: Subject, host: Host, desired: Wanted | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read-only. What a new start would fail for, asked only when one is due: absent paths, and why there are no
    secrets.
    """
    if desired is None or subject.record is None or subject.record.digest == desired.frame.digest:
        return (), ()
    paths = host.runtime.absent(desired.frame.config, desired.frame.root)
    return (*paths, *_absent_devices(host, desired)), lacking(host, desired.frame.secrets)


def _absent_devices(host: Host, desired: Wanted | None) -> tuple[str, ...]:
    return tuple(str(each) for each in absent_in(seek(host, desired.frame.claims))) if desired else ()


def _oom_kills(host: Host, group: str) -> int:
    """cgroup v2: memory.events; v1: memory.oom_control (kernel 4.13)."""
    file = "memory.events" if host.facts.version("memory") == 2 else "memory.oom_control"
    lines = (host.cgroups.read(group, "memory", file) or "").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _absent(host: Host, partners: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in partners if not live_pid(host, host.records.read(name)))


def _while_alive(subject: Subject, desired: Wanted, seen: Seen, record: Record) -> Iterator[Step]:
    if record.phase == "stopping":
        yield from _stopping(subject, record, record.intent or record.failure, Effect.NONE)
        return
    why, means = _reason_to_stop(desired, record)
    if why and desired.state != "stopped" and (seen.absent_paths or seen.lacking):
        absent = (f"not on this host: {', '.join(seen.absent_paths)}",) if seen.absent_paths else ()
        message = f"{'; '.join((*absent, *seen.lacking))}; what runs is kept until it is"
        yield Await(subject.name, "LaunchWouldFail", message, subject.now_ms + PATHS_LOOK_MS)
    elif why:
        yield from _stopping(subject, replace(record, stop=desired.stop), why, means)
        if desired.state != "stopped":
            yield from _birth(subject, desired, seen, means)
    elif record.stop != desired.stop:
        yield UpdateRecord(subject.name, replace(record, stop=desired.stop), "the new stop rule")


def _reason_to_stop(desired: Wanted, record: Record) -> tuple[str, Effect]:
    if desired.state == "stopped":
        return "the spec says stopped", Effect.LIVE
    if record.image and desired.frame.image and record.image != desired.frame.image:
        moved = f"its image is another one: {short(record.image)} → {short(desired.frame.image)}"
        return moved, Effect.RECREATE
    if record.frame != desired.frame.frame_digest:
        return "its root file system or namespaces changed", Effect.RECREATE
    if record.digest != desired.frame.digest:
        return "its process or mounts changed", Effect.RESTART
    return "", Effect.NONE


def _stopping(subject: Subject, record: Record, why: str, means: Effect) -> Iterator[Step]:
    if record.phase != "stopping":
        yield StopContainer(subject.name, record, subject.group, why, means)
    elif subject.now_ms >= record.kill_at:
        yield KillContainer(subject.name, subject.group, record, "grace is over", means)
    elif not record.asked:
        yield StopContainer(subject.name, record, subject.group, why, means, crashed=bool(record.failure))
    else:
        message = f"pid {record.pid} has until its grace is over to end"
        yield Await(subject.name, "Stopping", message, record.kill_at)


def _while_dead(subject: Subject, desired: Wanted, seen: Seen) -> Iterator[Step]:
    record = subject.record
    if record and record.phase == "launching" and record.digest == desired.frame.digest:
        if seen.launching:
            stop, means = desired.stop, Effect.NONE
            yield FinishLaunch(subject.name, desired.frame, subject.group, stop, means, record)
            return
        if seen.started:
            yield AdoptContainer(subject.name, record, seen.started)
            return
    if record and record.pid and record.exit is None:
        settled, look_again = _settled(desired.restart, record, seen, subject.now_ms)
        if settled != record:
            yield RecordExit(subject.name, settled)
        if look_again:
            yield Await(subject.name, "Exiting", "waiting for the exit code", subject.now_ms + LOOK_AGAIN_MS)
            return
        record = settled
    if desired.state == "stopped":
        if seen.leftovers:
            yield ClearRuntime(subject.name, subject.group, Effect.LIVE)
        return
    yield from _start(subject, desired, record, seen)


def _settled(restart: Restart, record: Record, seen: Seen, now_ms: int) -> tuple[Record, bool]:
    """The record with the exit in it; or, for a while, without it because the keeper has yet to say."""
    missing_at = record.missing_at or now_ms
    ended = _of_this_run(record, seen.exit)
    if ended is None and now_ms < missing_at + EXIT_PATIENCE_MS.get(restart.policy, PATIENT_MS):
        return replace(record, missing_at=missing_at), True
    if seen.end and not _is_sure(ended):
        init = record.pid, record.start_time, record.boot_id
        ended = ExitRecord(*init, seen.end.code, seen.end.signal, missing_at)
    exit_ = _exit(record, ended, seen.oom_kills, missing_at)
    return _with_backoff(
        restart, replace(record, exit=exit_, phase="exited", oom_kills=seen.oom_kills)
    ), False


def _exit(record: Record, ended: ExitRecord | None, oom_kills: int, missing_at: int) -> Exit:
    if ended is None:
        return Exit(-1, 0, _meant(record) or "Unknown", missing_at)
    if meant := _meant(record):
        reason = meant
    elif oom_kills > record.oom_kills and ended.signal == SIGKILL:
        reason = "OOMKilled"
    elif ended.signal:
        reason = "Signaled"
    else:
        reason = "Completed" if ended.code == 0 else "Error"
    return Exit(ended.code, ended.signal, reason, ended.at)


def _meant(record: Record) -> str:
    """The reason of an end that masu itself has brought about."""
    return "Stopped" if record.intent else UNHEALTHY if record.failure else ""


def _with_backoff(restart: Restart, record: Record) -> Record:
    """The first restart is at once, then initial, twice that, … up to max; a long enough run forgives all."""
    ended_at = record.exit.at if record.exit else 0
    if record.intent or ended_at - record.launched_at >= restart.maximum_ms:
        return replace(record, backoff=0 if record.intent else 1, start_at=0)
    delay = 0 if record.backoff == 0 else min(restart.initial_ms << (record.backoff - 1), restart.maximum_ms)
    return replace(record, backoff=min(record.backoff + 1, 30), start_at=ended_at + delay)


def _start(subject: Subject, desired: Wanted, record: Record | None, seen: Seen) -> Iterator[Step]:
    ended = record.exit if record else None
    if record is None or ended is None:
        yield from _birth(subject, desired, seen, Effect.CREATE)
    elif record.digest != desired.frame.digest:
        recreate = record.frame != desired.frame.frame_digest
        yield from _birth(subject, desired, seen, Effect.RECREATE if recreate else Effect.RESTART)
    elif not record.intent and not _wants_restart(desired.restart, ended):
        if seen.leftovers:
            yield ClearRuntime(subject.name, subject.group, Effect.NONE)
    else:
        if record.start_at > subject.now_ms and not record.intent:
            yield Await(
                subject.name, "BackOff", f"{ended.reason}: waits before it is started again", record.start_at
            )
        yield from _birth(subject, desired, seen, Effect.RESTART)


def _wants_restart(restart: Restart, ended: Exit) -> bool:
    return restart.policy == "always" or (restart.policy == "on-failure" and ended.failed)


def _birth(subject: Subject, desired: Wanted, seen: Seen, means: Effect) -> Iterator[Step]:
    frame = desired.frame
    if seen.absent_partners:
        message = f"container {seen.absent_partners[0]}, whose namespaces it shares, is not running"
        yield Await(subject.name, "WaitsForPartner", message, subject.now_ms + PARTNER_LOOK_MS)
    if seen.absent_devices:
        message = f"not on this host: {', '.join(seen.absent_devices)}"
        yield Await(subject.name, "NoDevice", message, subject.now_ms + DEVICES_LOOK_MS)
    if seen.leftovers:
        yield ClearRuntime(subject.name, subject.group, means)
    if seen.layer is not None and (not frame.layered or seen.layer != frame.frame_digest):
        yield RemoveLayer(subject.name, means)
    if frame.layered and seen.layer != frame.frame_digest:
        yield PrepareLayer(subject.name, frame, means)
    yield WriteBundle(subject.name, frame, means)
    yield LaunchContainer(subject.name, frame, subject.group, desired.stop, means)
