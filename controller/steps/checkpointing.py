"""Side effects of a checkpoint and of a restore, one by one: whoever is killed between two leaves no riddle.

What one step has to tell a later one is noted beside the images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from controller.checkpoints.policy import Policy
from controller.checkpoints.retention import Kept, doomed
from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.checkpoint import SPEC, UPPER, Checkpoint, Draft, How, LayerCopy, Origin
from controller.model.dump import Dumped, DumpOrder, RestoreOrder
from controller.model.frame import Frame
from controller.model.launch import Init
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.freezer import end, thaw
from controller.steps.runtime import LaunchContainer, conclude, launch_root, newborn

DUMP_TIMEOUT_MS = 120_000
RESTORE_TIMEOUT_MS = 120_000
NOTE, STORED, COST = "note.json", "stored", "cost"


def unheard(stage: str, amount: int) -> None:
    """For whoever is told of no progress."""
    del stage, amount


@dataclass(frozen=True, slots=True)
class DumpContainer(Step):
    """Memory to scratch; the layer's files are copied while everything stands still.

    `ends`: the container ends with it. Then it is stored while it stands still, too: when that fails, it goes on.
    """

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    init: Init
    frame: Frame
    policy: Policy
    how: How
    ends: bool

    @property
    def text(self) -> str:
        return "dump its processes"

    def apply(self, host: Host) -> Wait | None:
        images = host.scratches.make(self.container)
        copied: list[LayerCopy] = []
        copier = host.snapshots.copier(self.container, self.policy.min_free) if self.frame.layered else None

        def frozen() -> None:
            if copier:
                copied.append(copier())
            if self.ends:
                self._note(host, _NOT_YET, copied)
                store(host, self.container, images, self.policy)

        order = DumpOrder(
            self.container, self.init, images, DUMP_TIMEOUT_MS, tcp=self.policy.tcp, kill=self.ends
        )
        dumped = host.criu.dump(order, frozen)
        self._note(host, dumped, copied)
        return None

    def _note(self, host: Host, dumped: Dumped, copied: list[LayerCopy]) -> None:
        snapshot = copied[-1] if copied else None
        origin = Origin(
            container=self.container,
            created_ms=host.clock.wall_ms(),
            how=self.how,
            spec_digest=self.frame.digest,
            frame_digest=self.frame.frame_digest,
            rootfs=str(self.frame.root["path"]),
            kernel=host.facts.kernel,
            criu=host.criu.abilities().version,
            runtime=host.facts.runtime.name if host.facts.runtime else "",
            machine=host.facts.machine,
            cpu_features=host.hardware.cpu_features(),
            boot_id=host.facts.boot_id,
            boot_ms=host.clock.now_ms(),
            frozen_ms=round(dumped.frozen_us / 1000),
        )
        note = {
            "origin": origin.to_json(),
            "tcp": dumped.tcp,
            "snapshot": snapshot.path if snapshot else "",
            "spec": dict(self.frame.config),
        }
        host.scratches.note(self.container, NOTE, json.dumps(note))
        host.scratches.note(self.container, COST, cost(dumped, snapshot))


_NOT_YET = Dumped(0, 0, 0, 0, "established")


def cost(dumped: Dumped, snapshot: LayerCopy | None) -> str:
    """Pure. What the standstill was for, in words."""
    frozen = f"frozen for {round(dumped.frozen_us / 1000)} ms"
    if snapshot is None:
        return frozen
    ways = {"copied": snapshot.copied, "shared": snapshot.cloned}
    amounts = ", ".join(f"{amount} bytes {way}" for way, amount in ways.items() if amount)
    return f"{frozen}, {snapshot.took_ms} ms of it for files ({amounts or 'none'})"


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
    trees = {UPPER: note["snapshot"]} if note["snapshot"] else {}
    extras = {SPEC: json.dumps(note["spec"]).encode()}
    draft = Draft(Origin.from_json(note["origin"]), images, trees, extras)
    found = host.checkpoints.at(policy.key_file).save(draft, policy.min_free, unheard)
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
            Kept(each.id, each.origin.created_ms, each.stored, each.alone, whole=not each.damage)
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
    """Images to scratch, files to beside the layer; every byte is checked. Nothing of the container is touched."""

    stage: ClassVar[Stage] = Stage.STATE
    effect: ClassVar[Effect] = Effect.NONE

    identity: str
    key_file: str
    with_files: bool

    @property
    def text(self) -> str:
        return f"fetch checkpoint {self.identity}"

    def apply(self, host: Host) -> Wait | None:
        images = host.scratches.make(self.container)
        roots: Mapping[str, str] = {UPPER: host.snapshots.incoming(self.container)} if self.with_files else {}
        host.checkpoints.at(self.key_file).restore(self.identity, images, roots, unheard)
        return None


@dataclass(frozen=True, slots=True)
class SwapLayer(Step):
    """The files of the checkpoint take the place of the layer's, which are kept."""

    stage: ClassVar[Stage] = Stage.BIRTH
    effect: ClassVar[Effect] = Effect.NONE

    @property
    def text(self) -> str:
        return "put the files of the checkpoint in the place of the layer's"

    def apply(self, host: Host) -> Wait | None:
        host.snapshots.swap(self.container)
        return None


@dataclass(frozen=True, slots=True)
class PutBackLayer(Step):
    """A restore came to nothing: the layer has the files again that it had before."""

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
class SettleLayer(Step):
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
        record = replace(newborn(host, self), restored=self.identity)
        host.records.write(record)
        thaw(host, self.group)  # as before a launch
        return conclude(host, record, self, host.criu.restore(order))


@dataclass(frozen=True, slots=True)
class FinishRestore(RestoreContainer):
    """See what became of a restore that takes its time."""

    def apply(self, host: Host) -> Wait | None:
        record = host.records.read(self.container)
        if record is None:
            raise StepFailed(f"the record of {self.container} is gone")
        return conclude(host, record, self, host.criu.restored(self.container))


@dataclass(frozen=True, slots=True)
class RemoveCheckpoints(Step):
    """All of a container that goes: with it ends what they are for."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    identities: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"remove {len(self.identities)} checkpoint{'s' * (len(self.identities) != 1)}"

    def apply(self, host: Host) -> Wait | None:
        host.checkpoints.at("").remove(self.identities, unheard)
        return None
