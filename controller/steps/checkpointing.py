"""Side effects of a checkpoint and of a restore, one by one: whoever is killed between two leaves no riddle.

What one step has to tell a later one is noted beside the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from controller.checkpoints.cost import Ahead, cost, saved
from controller.checkpoints.policy import Policy
from controller.checkpoints.retention import Kept, doomed
from controller.checkpoints.users import moves, text_of
from controller.errors import GuardRefused, MasuError, StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.checkpoint import ENDED, PROGRESS, SPEC, UPPER, Checkpoint, Draft, How, Origin, TreeCopy
from controller.model.dump import Dumped, DumpOrder, RestoreOrder
from controller.model.frame import Frame, without_secrets
from controller.model.launch import Init
from controller.model.quantity import about_bytes
from controller.model.record import Exit, Record
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.freezer import end, thaw
from controller.steps.runtime import LaunchContainer, conclude, id_mapping, launch_root, newborn

DUMP_TIMEOUT_MS = 120_000
RESTORE_TIMEOUT_MS = 120_000
AHEAD, NOTE, STORED, COST = "ahead.json", "note.json", "stored", "cost"
DUMPING = "dumping"
"""What is noted as long as a checkpoint is made, and not while one is restored."""
PUT_BY = "Checkpointed"
"""The reason of an end that came with a checkpoint."""
TELL_MS = 100


def unheard(stage: str, amount: int) -> None:
    """For whoever is told of no progress."""
    del stage, amount


class Telling:
    """Of how much that is expected, in bytes, has been stored: a note for whoever waits for it."""

    def __init__(self, host: Host, name: str, expected: int) -> None:
        self._host, self._name, self._expected, self._told_ms = host, name, expected, 0

    def did(self, stage: str, amount: int) -> None:
        now = self._host.clock.now_ms()
        if stage != "read" or now - self._told_ms < TELL_MS:
            return
        self._told_ms = now
        done, whole = (about_bytes(each, up=False) for each in (amount, max(amount, self._expected)))
        self._host.scratches.note(self._name, PROGRESS, f"storing: {done} of about {whole}")


@dataclass(frozen=True, slots=True)
class CopyAhead(Step):
    """Files that will most likely be the same when the container stands still."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    trees: tuple[str, ...]
    policy: Policy

    @property
    def text(self) -> str:
        return "copy its files ahead"

    def apply(self, host: Host) -> Wait | None:
        host.scratches.make(self.container, 0)  # which says that there is something to clear
        host.scratches.note(self.container, PROGRESS, "copying its files")
        host.snapshots.take(self.container, self.trees, self.policy.min_free, ahead=True)
        return None


@dataclass(frozen=True, slots=True)
class PreDump(Step):
    """Memory that will most likely be the same when the container stands still; when that fails, it is noted.

    `need`: bytes that the images of a dump take. Room is made for two: all of it may have been written again.
    """

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    init: Init
    need: int

    @property
    def text(self) -> str:
        return "dump its memory ahead"

    def apply(self, host: Host) -> Wait | None:
        name = self.container
        try:
            images = host.scratches.make(name, 2 * self.need)
            host.scratches.note(name, DUMPING, "ahead")
            host.scratches.note(name, PROGRESS, "dumping its memory ahead")
            dumped = host.criu.pre_dump(DumpOrder(name, self.init, images, DUMP_TIMEOUT_MS))
            found = Ahead(self.init, dumped.frozen_us)
        except MasuError as error:
            host.scratches.make(name, 0)
            found = Ahead(self.init, failed=str(error))
        host.scratches.note(name, AHEAD, json.dumps(found.to_json()))
        return None


def _ahead(host: Host, name: str, init: Init) -> Ahead | None:
    """What came of a pre-dump, which is of no use if the container was started anew since; None: there was none."""
    text = host.scratches.noted(name, AHEAD)
    if not text:
        return None
    found = Ahead.from_json(json.loads(text))
    return found if found.init == init else Ahead(init, failed="the container was started anew")


@dataclass(frozen=True, slots=True)
class DumpContainer(Step):
    """Memory to scratch; the files of `trees` are copied while everything stands still.

    After a pre-dump only what has changed since; whatever goes wrong with that, then all of it.
    `ends`: the container ends with it. Then it is stored while it stands still, too: when that fails, it goes on.
    `need`: bytes that the images take.
    """

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    init: Init
    frame: Frame
    policy: Policy
    trees: tuple[str, ...]
    how: How
    ends: bool
    need: int

    @property
    def text(self) -> str:
        return "dump its processes"

    def apply(self, host: Host) -> Wait | None:
        ahead = _ahead(host, self.container, self.init)
        if ahead and not ahead.failed:
            failed = self._resumed(host, ahead)
            if not failed:
                return None
            ahead = Ahead(self.init, failed=failed)
        self._dump(host, host.scratches.make(self.container, self.need), ahead, lambda: None)
        return None

    def _resumed(self, host: Host, ahead: Ahead) -> str:
        """→ why the pre-dump was of no use. Raises what has nothing to do with it."""
        reached: list[bool] = []
        try:
            self._dump(host, host.scratches.images(self.container), ahead, lambda: reached.append(True))
        except MasuError as error:
            if reached:
                raise
            return str(error)
        return ""

    def _dump(self, host: Host, images: str, ahead: Ahead | None, reached: Callable[[], None]) -> None:
        """`reached`: told when the images are complete."""
        host.scratches.note(self.container, DUMPING, self.how)
        host.scratches.note(self.container, PROGRESS, "dumping its memory")
        copied: list[TreeCopy] = []

        def frozen() -> None:
            reached()
            copied[:] = host.snapshots.take(self.container, self.trees, self.policy.min_free)
            if self.ends:
                self._note(host, _NOT_YET, copied, ahead)
                store(host, self.container, images, self.policy)

        order = DumpOrder(
            self.container,
            self.init,
            images,
            DUMP_TIMEOUT_MS,
            tcp=self.policy.tcp,
            kill=self.ends,
            resumes=ahead is not None and not ahead.failed,
        )
        dumped = host.criu.dump(order, frozen)
        self._note(host, dumped, copied, ahead)

    def _note(self, host: Host, dumped: Dumped, copied: Sequence[TreeCopy], ahead: Ahead | None) -> None:
        record = host.records.read(self.container)
        origin = Origin(
            container=self.container,
            created_ms=host.clock.wall_ms(),
            how=self.how,
            spec_digest=self.frame.digest,
            frame_digest=self.frame.frame_digest,
            rootfs=self.frame.rootfs,
            kernel=host.facts.kernel,
            criu=host.criu.abilities().version,
            runtime=host.facts.runtime.name if host.facts.runtime else "",
            machine=host.facts.machine,
            cpu_features=host.hardware.cpu_features(),
            boot_id=host.facts.boot_id,
            boot_ms=host.clock.now_ms(),
            frozen_ms=round(dumped.frozen_us / 1000),
            lineage=record.lineage if record else "",
            ended=self.ends,
            users=text_of(id_mapping(host, self.container, self.frame)),
        )
        memory, files = (
            (dumped.pages_written + dumped.pages_inherited) * host.facts.page_size,
            (each.copied + each.cloned for each in copied),
        )
        note = {
            "origin": origin.to_json(),
            "tcp": dumped.tcp,
            "trees": {each.tree: each.path for each in copied},
            "spec": without_secrets(self.frame.config),
            "expected": memory + sum(files),
        }
        host.scratches.note(self.container, NOTE, json.dumps(note))
        words = (cost(dumped, copied), saved(dumped, ahead, host.facts.page_size))
        host.scratches.note(self.container, COST, "; ".join(each for each in words if each))


_NOT_YET = Dumped(0, 0, 0, 0, "established")


@dataclass(frozen=True, slots=True)
class MakeWhole(Step):
    """Of a pre-dump and what was dumped after it: from here on nobody knows that there were two."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "put its memory together"

    def apply(self, host: Host) -> Wait | None:
        try:
            host.dumps.make_whole(host.scratches.images(self.container))
        except MasuError as error:
            ahead = Ahead.from_json(json.loads(host.scratches.noted(self.container, AHEAD)))
            failed = replace(ahead, failed=str(error))
            host.scratches.note(self.container, AHEAD, json.dumps(failed.to_json()))
            raise
        return None


@dataclass(frozen=True, slots=True)
class RecordPutBy(Step):
    """It did not crash: it was ended with its checkpoint."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "record that it was ended with a checkpoint"

    def apply(self, host: Host) -> Wait | None:
        record = host.records.read(self.container)
        if record:
            ended = Exit(0, 0, PUT_BY, host.clock.now_ms())
            why = "ended with a checkpoint"
            host.records.write(replace(record, phase="exited", exit=ended, intent=why, backoff=0, start_at=0))
        return None


@dataclass(frozen=True, slots=True)
class NoteLineage(Step):
    """On disk, for after a reboot: which run the container is in, or that it was ended on purpose."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.NONE

    lineage: str

    @property
    def text(self) -> str:
        return "note that the last run was ended" if self.lineage == ENDED else f"note run {self.lineage}"

    def apply(self, host: Host) -> Wait | None:
        host.checkpoints.note_lineage(self.container, self.lineage)
        return None


@dataclass(frozen=True, slots=True)
class StoreCheckpoint(Step):
    """What was dumped becomes a checkpoint that is listed, whole and on disk, or nothing at all."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    images: str
    policy: Policy

    @property
    def text(self) -> str:
        return "store the checkpoint"

    def apply(self, host: Host) -> Wait | None:
        store(host, self.container, self.images, self.policy)
        return None


def store(host: Host, name: str, images: str, policy: Policy) -> Checkpoint:
    """Raises StepFailed when there is no room, HostLacks."""
    note = json.loads(host.scratches.noted(name, NOTE))
    extras = {SPEC: json.dumps(note["spec"]).encode()}
    draft = Draft(Origin.from_json(note["origin"]), images, note["trees"], extras)
    found = host.checkpoints.at(policy.key_file).save(
        draft, policy.min_free, Telling(host, name, note["expected"]).did
    )
    host.scratches.note(name, STORED, found.id)
    return found


@dataclass(frozen=True, slots=True)
class RetireCheckpoints(Step):
    """Remove those that no rule keeps."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.NONE

    policy: Policy

    @property
    def text(self) -> str:
        return "remove checkpoints that no rule keeps"

    def apply(self, host: Host) -> Wait | None:
        found = [
            Kept(
                each.id,
                each.origin.created_ms,
                each.stored,
                each.alone,
                whole=not each.damage,
                imported=each.origin.how == "imported",
                lineage=each.origin.lineage,
            )
            for each in host.checkpoints.checkpoints(self.container)
            if each.origin
        ]
        gone = doomed(found, self.policy.keep, self.policy.pins)
        if gone:
            host.checkpoints.at("").remove(gone, unheard)
        return None


@dataclass(frozen=True, slots=True)
class ClearScratch(Step):
    """Nothing of a dump or a restore is left but what was stored."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "clear the scratch directory"

    def apply(self, host: Host) -> Wait | None:
        clear(host, self.container)
        return None


def clear(host: Host, name: str) -> None:
    """The scratch directory goes last: it says that there is something to clear."""
    host.snapshots.drop(name)
    host.scratches.remove(name)


@dataclass(frozen=True, slots=True)
class FetchCheckpoint(Step):
    """Images to scratch, files to beside those in force; every byte is checked. The container is not touched.

    `need`: bytes that the images take.
    """

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    identity: str
    key_file: str
    trees: tuple[str, ...]
    frame: Frame
    users: str
    need: int

    @property
    def text(self) -> str:
        return f"fetch checkpoint {self.identity}"

    def apply(self, host: Host) -> Wait | None:
        images = host.scratches.make(self.container, self.need)
        host.scratches.note(self.container, PROGRESS, "fetching it")
        try:
            other = moves(self.users, id_mapping(host, self.container, self.frame))
        except ValueError as error:
            raise GuardRefused(f"checkpoint {self.identity}: {error}") from error
        roots = host.snapshots.incoming(self.container, self.trees)
        host.checkpoints.at(self.key_file).restore(self.identity, images, roots, unheard, {UPPER: other})
        return None


@dataclass(frozen=True, slots=True)
class SwapFiles(Step):
    """The files of the checkpoint take the place of those in force, which are kept."""

    stage: ClassVar[Stage] = Stage.BIRTH
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "put the files of the checkpoint in place"

    def apply(self, host: Host) -> Wait | None:
        host.snapshots.swap(self.container)
        return None


@dataclass(frozen=True, slots=True)
class PutBackFiles(Step):
    """A restore came to nothing: the files are again what they were before."""

    stage: ClassVar[Stage] = Stage.STOP
    effect: ClassVar[Effect] = Effect.NONE

    group: str

    @property
    def text(self) -> str:
        return "put the files from before the restore back"

    def apply(self, host: Host) -> Wait | None:
        end(host, self.group, None)
        host.snapshots.put_back(self.container)
        clear(host, self.container)
        return None


@dataclass(frozen=True, slots=True)
class SettleFiles(Step):
    """What was restored runs: the files from before go."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "remove the files from before the restore"

    def apply(self, host: Host) -> Wait | None:
        host.snapshots.settle(self.container)
        clear(host, self.container)
        return None


@dataclass(frozen=True, slots=True)
class RestoreContainer(LaunchContainer):
    """A launch whose processes come from a checkpoint."""

    identity: str
    lineage: str
    images: str
    policy: Policy

    @property
    def text(self) -> str:
        return f"restore from checkpoint {self.identity}"

    def apply(self, host: Host) -> Wait | None:
        root = launch_root(host, self)
        order = RestoreOrder(
            self.container, self.group, root, self.images, RESTORE_TIMEOUT_MS, tcp=self.policy.tcp
        )
        tries = self._tries(host.records.read(self.container))
        record = replace(newborn(host, self), restored=self.identity, lineage=self.lineage, tries=tries)
        host.records.write(record)
        thaw(host, self.group)  # as before a launch
        return conclude(host, record, self, host.criu.restore(order))

    def _tries(self, before: Record | None) -> int:
        """Pure. What somebody has ended on purpose in between does not count."""
        again = before is not None and before.restored == self.identity and not before.intent
        return before.tries + 1 if before and again else 1


@dataclass(frozen=True, slots=True)
class FinishRestore(RestoreContainer):
    """See what became of a restore that takes its time."""

    def apply(self, host: Host) -> Wait | None:
        record = host.records.read(self.container)
        if record is None:
            raise StepFailed(f"the record of {self.container} is gone")
        return conclude(host, record, self, host.criu.restored(self.container))


@dataclass(frozen=True, slots=True)
class RemoveCheckpoint(Step):
    """One, whoever it is of; what is noted of runs stays."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    identity: str

    @property
    def text(self) -> str:
        return f"remove checkpoint {self.identity}"

    def apply(self, host: Host) -> Wait | None:
        host.checkpoints.at("").remove((self.identity,), unheard)
        return None


@dataclass(frozen=True, slots=True)
class RemoveCheckpoints(Step):
    """All of a container that goes, and what is noted of its runs: with it ends what they are for."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    identities: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"remove {len(self.identities)} checkpoint{'s' * (len(self.identities) != 1)}"

    def apply(self, host: Host) -> Wait | None:
        host.checkpoints.note_lineage(self.container, "")
        host.attempts.remove(self.container)
        if self.identities:
            host.checkpoints.at("").remove(self.identities, unheard)
        return None
