"""Checkpoints and restores as acts: what is asked first, which steps follow, and what is done when one fails.

Whoever asks, by hand or otherwise, comes through here. While something is done to the container itself, nobody else
works on it (`hold`); compressing and storing come after that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from controller.checkpoints.ladder import TRIES
from controller.checkpoints.policy import Policy
from controller.errors import CheckpointDamaged, GuardRefused, HostLacks, LaunchFailed, MasuError, StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.checkpoint import UPPER, Checkpoint, How, volume_tree
from controller.model.frame import Frame
from controller.model.names import quote
from controller.reconcile.apply import Failpoint
from controller.reconcile.audit import do
from controller.reconcile.desired import Desired
from controller.reconcile.differences import differences
from controller.reconcile.plan import plan, subject_of
from controller.reconcile.preflight import PART, check_dump, pays_ahead
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.checkpointing import (
    COST,
    STORED,
    ClearScratch,
    CopyAhead,
    DumpContainer,
    FetchCheckpoint,
    FinishRestore,
    MakeWhole,
    PreDump,
    PutBackFiles,
    RecordPutBy,
    RestoreContainer,
    RetireCheckpoints,
    SettleFiles,
    StoreCheckpoint,
    SwapFiles,
)
from controller.steps.health import ProveHealth
from controller.steps.runtime import (
    ClearRuntime,
    KillContainer,
    PrepareLayer,
    RemoveLayer,
    StopContainer,
    UpdateRecord,
    WriteBundle,
)
from controller.steps.secrets import lacking

Hold = Callable[[], AbstractContextManager[object]]
Barred = Callable[[str], str]
"""Why a container may not be born here, in words; "": it may."""
LOOK_MS = 5


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint that is listed now. In words: what the standstill was for, and what could not be tidied up."""

    checkpoint: Checkpoint
    cost: str
    left: str


def nobody(name: str) -> str:
    """Pure. Of a host that bars none, and for whoever has been asked already."""
    del name
    return ""


@dataclass(frozen=True, slots=True)
class Acts:
    """What can be done to one container. `hold`: nobody else works on it meanwhile. `barred`: see `Barred`."""

    host: Host
    failpoint: Failpoint
    desired: Desired
    group: str
    hold: Hold
    barred: Barred = nobody

    @property
    def name(self) -> str:
        return self.desired.name

    @property
    def policy(self) -> Policy:
        found: Policy = self.desired.parts[PART]
        return found

    def checkpoint(self, how: How, *, ends: bool) -> Made:
        """Raises GuardRefused, HostLacks, StepFailed: the container runs on, and nothing half is left."""
        host, name, policy = self.host, self.name, self.policy
        if policy.mode == "stop" and not ends and how != "shutdown":
            return self._proven(how)
        try:
            with self.hold():
                found = check_dump(host, self.desired, self.group)
                init = subject_of(name, self.group, host).init
            self._do(CopyAhead(name, trees_of(self.desired), policy))  # it may take long, and repairs go on
            if not ends and pays_ahead(host, found):
                self._do(PreDump(name, init, found.needed))
            self._dump(how, ends=ends)
            if not ends:
                self._make_whole(how)
                self._do(StoreCheckpoint(name, host.scratches.images(name), policy))
            identity, cost = host.scratches.noted(name, STORED), host.scratches.noted(name, COST)
        finally:
            self._do(ClearScratch(name))
        return Made(find(host, name, identity), cost, self._retire())

    def _dump(self, how: How, *, ends: bool) -> None:
        host, name, trees = self.host, self.name, trees_of(self.desired)
        with self.hold():
            found = check_dump(host, self.desired, self.group)
            init = subject_of(name, self.group, host).init
            self._do(
                DumpContainer(name, init, self.desired.frame, self.policy, trees, how, ends, found.needed)
            )
            if ends:
                self._do(RecordPutBy(name))
                self._do(ClearRuntime(name, self.group, Effect.NONE))

    def _make_whole(self, how: How) -> None:
        """Should a dump and its pre-dump not go together, there is one more, without."""
        try:
            self._do(MakeWhole(self.name))
        except MasuError:
            self._dump(how, ends=False)

    def _proven(self, how: How) -> Made:
        """Ended with a checkpoint, and gone on from it: what is listed has been restored once."""
        with self.hold():
            self._check_birth()
            unheld = replace(self, hold=nullcontext)
            made = unheld.checkpoint(how, ends=True)
            unheld.restore(made.checkpoint.id)
        return made

    def restore(self, identity: str) -> Checkpoint:
        """`identity`: "" for the newest whole one. What runs is ended when the checkpoint is there and checked.

        Raises GuardRefused, HostLacks, StepFailed. When nothing could be restored, the files are as they were
        before, and whoever looks next starts the container.
        """
        host, name = self.host, self.name
        self._check_birth()
        found = find(host, name, identity)
        with self.hold():
            check_restore(host, self.desired, found)
            trees = tuple(each for each in trees_of(self.desired) if each in found.trees)
            try:
                self._prepare()
                users = found.origin.users if found.origin else ""
                frame, key_file = self.desired.frame, self.policy.key_file
                need = found.images or found.size
                self._do(FetchCheckpoint(name, found.id, key_file, trees, frame, users, need))
            except MasuError as error:
                self._undo_fetch()
                if isinstance(error, CheckpointDamaged):
                    raise CheckpointDamaged(f"checkpoint {found.id} is damaged: {error}") from error
                raise
            self._end(f"restored from {found.id}")
            self._put_in(found, with_files=bool(trees))
        return found

    def _check_birth(self) -> None:
        """Nobody is ended for a rebirth that cannot be. Raises GuardRefused, StepFailed."""
        if why := self.barred(self.name):
            raise GuardRefused(why)
        if absent := lacking(self.host, self.desired.frame.secrets):
            raise StepFailed(f"container {self.name}: {'; '.join(absent)}")

    def _retire(self) -> str:
        """Why those that no rule keeps are still there; that is made up for with the next checkpoint."""
        try:
            self._do(RetireCheckpoints(self.name, self.policy))
        except MasuError as error:
            return f"older ones are still there: {error}"
        return ""

    def _prepare(self) -> None:
        """What has to be there before a birth, where the container has not run in this boot."""
        frame, host = self.desired.frame, self.host
        for step in plan(self.desired, self.group, host).steps:
            if Stage.PLACE <= step.stage < Stage.BIRTH or isinstance(step, (SettleFiles, PutBackFiles)):
                self._do(step)
        if subject_of(self.name, self.group, host).pid or not frame.layered:
            return
        found = host.layers.state(self.name)
        if found is not None and found != frame.frame_digest:
            self._do(RemoveLayer(self.name, Effect.NONE))
        if found != frame.frame_digest:
            self._do(PrepareLayer(self.name, frame, Effect.NONE))

    def _undo_fetch(self) -> None:
        """Nothing was touched but what is beside the layer; should that stay, the next look finds it."""
        with suppress(MasuError):
            self._do(SettleFiles(self.name))

    def _end(self, why: str) -> None:
        """As its spec says that it is stopped."""
        host, subject = self.host, subject_of(self.name, self.group, self.host)
        if subject.pid and subject.record:
            wait = self._do(StopContainer(self.name, subject.record, self.group, why, Effect.RESTART))
            while subject_of(self.name, self.group, host).pid and wait and host.clock.now_ms() < wait.until:
                host.clock.sleep_ms(LOOK_MS)
            if subject_of(self.name, self.group, host).pid:
                self._do(KillContainer(self.name, self.group, subject.record, why, Effect.RESTART))
        self._do(ClearRuntime(self.name, self.group, Effect.RESTART))

    def _put_in(self, found: Checkpoint, *, with_files: bool) -> None:
        frame = self.desired.frame
        images = self.host.scratches.images(self.name)
        stop = self.desired.parts["life"].stop
        lineage = found.origin.lineage if found.origin else ""
        birth = (self.name, frame, self.group, stop, Effect.RESTART, found.id, lineage, images, self.policy)
        try:
            if with_files:
                self._do(SwapFiles(self.name))
            self._do(WriteBundle(self.name, frame, Effect.RESTART))
            wait = self._do(RestoreContainer(*birth))
            while wait:
                self.host.clock.sleep_ms(LOOK_MS)
                wait = self._do(FinishRestore(*birth))
            if health := self.desired.parts.get("health"):
                self._do(ProveHealth(self.name, self.group, health))
        except MasuError as error:
            self._do(ClearRuntime(self.name, self.group, Effect.RESTART))
            self._disown(found)
            self._do(PutBackFiles(self.name, self.group))
            raise LaunchFailed(
                f"{found.id} could not be restored: {error}; its files are as before"
            ) from error
        self._do(SettleFiles(self.name))

    def _disown(self, found: Checkpoint) -> None:
        """Who was restored and did not answer has not crashed: it is as if it had never come so far, for good."""
        record = self.host.records.read(self.name)
        if record and record.phase == "running" and record.restored == found.id:
            unborn = replace(record, phase="launching", pid=0, start_time=0, tries=TRIES)
            self._do(UpdateRecord(self.name, unborn, "that it was not restored"))

    def _do(self, step: Step) -> Wait | None:
        """Raises what the step raises."""
        return do(step, self.host, self.failpoint)


def trees_of(desired: Desired) -> tuple[str, ...]:
    """Pure. Whose files are of the same moment as the memory."""
    policy: Policy = desired.parts[PART]
    layer = (UPPER,) if desired.frame.layered else ()
    return (*layer, *map(volume_tree, policy.volumes.taken))


def check_restore(host: Host, desired: Desired, found: Checkpoint) -> None:
    """Read-only. Whether the specification of now fits the memory of then.

    Raises GuardRefused, HostLacks, StepFailed.
    """
    name, frame, origin = desired.name, desired.frame, found.origin
    abilities = host.criu.abilities()
    if not abilities.usable:
        raise HostLacks(f"nothing can be restored here: {abilities.said}")
    if origin is None or found.damage:
        raise CheckpointDamaged(f"checkpoint {found.id} is damaged: {found.damage}")
    if desired.parts["life"].state == "stopped":
        raise GuardRefused(f"{name}: its spec says state: stopped")
    if origin.machine and origin.machine != host.facts.machine:
        raise GuardRefused(f"checkpoint {found.id} is of a machine of another kind: {quote(origin.machine)}")
    missing = sorted(set(origin.cpu_features).difference(host.hardware.cpu_features()))
    if missing:
        raise GuardRefused(
            f"checkpoint {found.id} was made on a cpu with more instructions, which its programs may use:"
            f" {', '.join(missing)}"
        )
    if why := unfit(found, frame):
        raise GuardRefused(why if origin.foreign else f"{why}{_told(host, desired, found)}")


def _told(host: Host, desired: Desired, found: Checkpoint) -> str:
    """Read-only. What differs, as far as that can be known, and what to do."""
    policy: Policy = desired.parts[PART]
    then = host.checkpoints.config(found.id, policy.key_file if found.key else "")
    known = differences(then, found.origin.rootfs if found.origin else "", desired.frame)
    said = f": {'; '.join(known)}" if known else ""
    return f"{said}; take that back in the spec to restore, or make a new checkpoint"


def unfit(found: Checkpoint, frame: Frame) -> str:
    """Pure. Why its processes do not go with the spec of now; empty: they do."""
    origin = found.origin
    if origin is not None and origin.foreign:
        return (
            f"checkpoint {found.id} was made by another program, and its images do not say which mounts, namespaces"
            " and log pipes masu has to put around its processes: whoever made it can restore it, from"
            f" `masu checkpoint export {found.id} FILE`"
        )
    if origin is None or origin.frame_digest != frame.frame_digest:
        what = "another root file system, or with other namespaces,"
    elif origin.spec_digest != frame.digest:
        what = "another process, or with other mounts,"
    else:
        return ""
    return f"checkpoint {found.id} was made with {what} than the spec has now"


def find(host: Host, name: str, identity: str) -> Checkpoint:
    """Read-only. By its id, or for "" the newest that is not known to be damaged. Raises StepFailed.

    One that came in an archive is asked for by its id: its processes may do anything that whoever made it wanted.
    """
    found = [each for each in host.checkpoints.checkpoints(name) if each.container in {name, ""}]
    if identity:
        chosen = [each for each in found if each.id == identity]
        if not chosen:
            raise StepFailed(f"container {name} has no checkpoint {identity}: see `masu checkpoints {name}`")
        return chosen[0]
    whole = [each for each in found if not each.damage]
    own = [each for each in whole if each.origin and each.origin.how != "imported"]
    if whole and not own:
        raise StepFailed(
            f"all checkpoints of container {name} were imported: name the one that you trust,"
            f" masu restore {name} {whole[-1].id}"
        )
    if not own:
        raise StepFailed(f"container {name} has no checkpoint" + (" that is whole" if found else ""))
    return own[-1]


def mend(host: Host, root_of: Callable[[str], str], failpoint: Failpoint) -> list[tuple[str, str]]:
    """After a masu that was killed: undo what its CRIU has left, and clear its images. → (container, what was done)

    A restore that goes on by itself is left alone: whoever looks at the container sees its end.
    """
    said: list[tuple[str, str]] = []
    for name in sorted(host.scratches.names()):
        group = root_of(name)
        record = host.records.read(name)
        if record and record.phase == "launching" and host.runtime.state(name, group).launching:
            continue
        with suppress(MasuError):
            said += [(name, each) for each in host.criu.mend(name, group)]
        do(ClearScratch(name), host, failpoint)
    return said
