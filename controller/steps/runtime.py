"""Side effects on a container's life: its layer, its bundle, its birth and its end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from controller.errors import HostLacks, StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.device import nodes_for, rules_for
from controller.model.frame import Frame, IdMapping, resolve
from controller.model.image import short
from controller.model.launch import Init
from controller.model.record import Exit, Record, StopRule
from controller.model.secret import SECRET_MISSING
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.devices import nodes_made, seek
from controller.steps.freezer import end, thaw
from controller.steps.living import live_pid

LAUNCH_LOOK_MS = 100


DOES_NOT_FIT, NOT_ALLOWED = "DoesNotFit", "NotAllowed"
IMAGE_ABSENT, IMAGE_UNFIT, IMAGE_UNKNOWN = "ImageAbsent", "ImageUnfit", "ImageUnknown"
FOR_PEOPLE = frozenset(
    {"AddressTaken", "SubnetTaken", "NameTaken", "DeviceTaken", "NoParent", "NoDevice"}
    | {"NoAddressLeft", "MtuTooLarge", "NoPacketFilter", DOES_NOT_FIT, NOT_ALLOWED, SECRET_MISSING}
    | {IMAGE_ABSENT, IMAGE_UNFIT, IMAGE_UNKNOWN}
)
"""Reasons for waiting that last until somebody does something about them."""


@dataclass(frozen=True, slots=True)
class Await(Step):
    """Not yet: nothing is touched, and what follows waits.

    `interface`: the key of the one that has to wait; what is about others goes on. `first`: nothing of the network
    is touched before it.
    """

    effect: ClassVar[Effect] = Effect.NONE
    writes: ClassVar[bool] = False

    reason: str
    message: str
    until: int
    interface: str = ""
    first: bool = False

    @property
    def stage(self) -> Stage:
        return Stage.LINK if self.interface or self.first else Stage.BIRTH

    @property
    def scope(self) -> str:
        return self.interface

    @property
    def text(self) -> str:
        return f"wait: {self.message}"

    def apply(self, host: Host) -> Wait | None:
        del host
        return Wait(self.reason, self.message, self.until)


@dataclass(frozen=True, slots=True)
class StopContainer(Step):
    """Ask init to end; whoever looks after `grace` kills it.

    The record says so before the signal goes, and after it that it went: interrupted in between, the step is done
    again and the grace goes on. `crashed`: `why` is what is wrong with it, and it goes on as after a crash.
    """

    stage: ClassVar[Stage] = Stage.STOP

    record: Record
    group: str
    why: str
    means: Effect
    crashed: bool = False

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return f"stop (signal {self.record.stop.signal}, grace {self.record.stop.grace_ms} ms): {self.why}"

    def apply(self, host: Host) -> Wait | None:
        until = self.record.kill_at or host.clock.now_ms() + self.record.stop.grace_ms
        intent, failure = ("", self.why) if self.crashed else (self.why, "")
        stopping = replace(self.record, phase="stopping", kill_at=until, intent=intent, failure=failure)
        host.records.write(stopping)
        if self.record.stop.grace_ms == 0:
            end(host, self.group, self.record)
            return Wait("Stopping", f"waiting for pid {self.record.pid} to end", host.clock.now_ms())
        thaw(host, self.group)
        host.processes.signal(self.record.pid, self.record.start_time, self.record.stop.signal)
        host.records.write(replace(stopping, asked=True))
        return Wait("Stopping", f"waiting for pid {self.record.pid} to end", until)


@dataclass(frozen=True, slots=True)
class KillContainer(Step):
    """SIGKILL init and everything in the container's cgroup: grace is over, or nobody owns what is left."""

    stage: ClassVar[Stage] = Stage.STOP

    group: str
    record: Record | None
    why: str
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return f"kill: {self.why}"

    def apply(self, host: Host) -> Wait | None:
        end(host, self.group, self.record)
        return None


@dataclass(frozen=True, slots=True)
class RecordExit(Step):
    """Write down how init ended and when it may start again."""

    stage: ClassVar[Stage] = Stage.STOP
    effect: ClassVar[Effect] = Effect.NONE

    record: Record

    @property
    def text(self) -> str:
        ended = self.record.exit or Exit(-1, 0, "Unknown", 0)
        return f"record exit: {ended.reason} (code {ended.code}, signal {ended.signal})"

    def apply(self, host: Host) -> Wait | None:
        host.records.write(self.record)
        return None


@dataclass(frozen=True, slots=True)
class ClearRuntime(Step):
    """Remove what the runtime remembers of a container that has ended, after killing what is left of it."""

    stage: ClassVar[Stage] = Stage.STOP

    group: str
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return "clear what is left of the last run"

    def apply(self, host: Host) -> Wait | None:
        end(host, self.group, None)
        host.runtime.clear(self.container)
        return None


@dataclass(frozen=True, slots=True)
class RemoveLayer(Step):
    """Throw the writable layer away."""

    means: Effect

    @property
    def stage(self) -> Stage:
        return Stage.BIRTH if self.means is not Effect.DELETE else Stage.CLEAR

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return "remove the writable layer"

    def apply(self, host: Host) -> Wait | None:
        host.layers.remove(self.container)
        return None


@dataclass(frozen=True, slots=True)
class PrepareLayer(Step):
    """Make an empty writable layer that belongs to the container's root user."""

    stage: ClassVar[Stage] = Stage.BIRTH

    frame: Frame
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return "prepare an empty writable layer"

    def apply(self, host: Host) -> Wait | None:
        ids = id_mapping(host, self.container, self.frame)
        owner, sized = ids.root_user if ids else 0, self.frame.sized
        host.layers.prepare(self.container, self.frame.frame_digest, owner, sized=sized)
        return None


@dataclass(frozen=True, slots=True)
class WriteBundle(Step):
    """Write the bundle config for the runtime, with leased ids and partners' processes filled in."""

    stage: ClassVar[Stage] = Stage.BIRTH

    frame: Frame
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        image = f", of image {short(self.frame.image)}" if self.frame.image else ""
        return f"write bundle {self.frame.digest}{image}"

    def apply(self, host: Host) -> Wait | None:
        ids = id_mapping(host, self.container, self.frame)
        partners = {other: _partner_pid(host, other) for other in self.frame.partners}
        config = resolve(self.frame.config, ids, partners)
        found = seek(host, self.frame.claims)
        root = {**self.frame.root, "nodes": nodes_for(found), "rules": rules_for(found)}
        host.runtime.write_bundle(self.container, config, root)
        return None


@dataclass(frozen=True, slots=True)
class LaunchContainer(Step):
    """Start the container. The record says `launching` before and `running` after, so that a crash in
    between is seen as what it is."""

    stage: ClassVar[Stage] = Stage.BIRTH

    frame: Frame
    group: str
    stop: StopRule
    means: Effect

    @property
    def effect(self) -> Effect:
        return self.means

    @property
    def text(self) -> str:
        return f"start {' '.join(self.frame.args)}"

    def apply(self, host: Host) -> Wait | None:
        root = launch_root(host, self)
        recipe = host.runtime.recipe(self.container, self.group, root)
        record = newborn(host, self)
        host.records.write(record)
        thaw(host, self.group)  # whoever enters a frozen cgroup is frozen, the runtime included
        return conclude(host, record, self, host.runtime.launch(recipe))


@dataclass(frozen=True, slots=True)
class FinishLaunch(LaunchContainer):
    """See what became of a launch that takes its time."""

    record: Record

    def apply(self, host: Host) -> Wait | None:
        return conclude(host, self.record, self, host.runtime.launched(self.container))


def launch_root(host: Host, launch: LaunchContainer) -> dict[str, Any]:
    """The root of the frame with the ids and the device nodes that only the host knows."""
    root = dict(launch.frame.root)
    ids = id_mapping(host, launch.container, launch.frame)
    if ids:
        root["ids"] = {"uids": list(ids.uids), "gids": list(ids.gids)}
    root["nodes"] = nodes_made(host, launch.frame.claims, ids)
    return root


def conclude(host: Host, record: Record, launch: LaunchContainer, launched: Init | None) -> Wait | None:
    """Write down who was born, or say when to look again.

    A runtime that moves the container into its cgroups by itself has also put device rules of its own there, which
    allow the same to be opened, but every node to be made.
    """
    if launched is None:
        message = "the runtime has not started it yet"
        return Wait("Launching", message, host.clock.now_ms() + LAUNCH_LOOK_MS)
    host.records.write(born(host, record, launched))
    if host.facts.runtime and host.facts.runtime.joins_itself:
        with suppress(HostLacks):  # which a look tells
            host.device_rules.put(launch.group, rules_for(seek(host, launch.frame.claims)))
    return None


def newborn(host: Host, launch: LaunchContainer) -> Record:
    """What is remembered of earlier runs goes on: how often it was restarted, and how the last one ended.

    Another process or root file system, as an edit wants it, is no restart, whatever became of the one before.
    """
    before = host.records.read(launch.container)
    again = bool(before and before.exit and not before.intent and before.digest == launch.frame.digest)
    return Record(
        name=launch.container,
        digest=launch.frame.digest,
        frame=launch.frame.frame_digest,
        phase="launching",
        boot_id=host.facts.boot_id,
        stop=launch.stop,
        restarts=before.restarts + again if before else 0,
        backoff=before.backoff if before else 0,
        oom_kills=before.oom_kills if before else 0,
        last_exit=(before.exit or before.last_exit) if before else None,
        image=launch.frame.image,
        lineage=f"{host.facts.boot_id[:8]}-{host.clock.now_ms()}",
    )


def born(host: Host, record: Record, init: Init) -> Record:
    """The record of a container whose init has just been started."""
    now = host.clock.now_ms()
    return replace(record, phase="running", pid=init.pid, start_time=init.start_time, launched_at=now)


@dataclass(frozen=True, slots=True)
class AdoptContainer(Step):
    """Take over a container that was started, although nobody lived to write it down."""

    stage: ClassVar[Stage] = Stage.STOP
    effect: ClassVar[Effect] = Effect.NONE

    record: Record
    pid: int

    @property
    def text(self) -> str:
        return f"adopt pid {self.pid}"

    def apply(self, host: Host) -> Wait | None:
        stat = host.processes.stat(self.pid)
        if stat:
            init = Init(self.pid, stat.start_time)
            host.runtime.adopt(self.container, init)
            host.records.write(born(host, self.record, init))
        return None


@dataclass(frozen=True, slots=True)
class UpdateRecord(Step):
    """Write a changed rule (stop signal, grace) into the record of a running container."""

    stage: ClassVar[Stage] = Stage.CHANGE
    effect: ClassVar[Effect] = Effect.LIVE

    record: Record
    what: str

    @property
    def text(self) -> str:
        return f"note {self.what}"

    def apply(self, host: Host) -> Wait | None:
        host.records.write(self.record)
        return None


@dataclass(frozen=True, slots=True)
class ForgetContainer(Step):
    """Remove bundle, runtime state, logs and leased ids."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove bundle, runtime state, logs and leases"

    def apply(self, host: Host) -> Wait | None:
        host.runtime.forget(self.container)
        host.layers.release_range(self.container)
        return None


@dataclass(frozen=True, slots=True)
class RemoveRecord(Step):
    """The very last trace: as long as it is there, an interrupted removal is found and goes on."""

    stage: ClassVar[Stage] = Stage.UNPLACE
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove record"

    def apply(self, host: Host) -> Wait | None:
        host.records.remove(self.container)
        return None


def id_mapping(host: Host, name: str, frame: Frame) -> IdMapping | None:
    """The container's id mapping, leasing a range when the spec says `auto`."""
    user: Mapping[str, Any] | None = frame.root.get("user")
    if user is None:
        return None
    return IdMapping.of(user, host.layers.lease_range(name) if "auto" in user else None)


def _partner_pid(host: Host, name: str) -> int:
    pid = live_pid(host, host.records.read(name))
    if not pid:
        raise StepFailed(f"container {name}, whose namespaces are to be shared, is not running")
    return pid
