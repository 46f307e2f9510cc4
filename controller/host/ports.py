"""What the rest of masu may ask of the host: Protocols of at most seven methods, and the frozen `Host` bundle.

No operating system here; the drivers beside this file implement these, and only `controller.app` and
`controller.cli` know them.
Reading something absent returns None or an empty value. Failures while changing something are `StepFailed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from controller.checkpoints.users import Moves
from controller.errors import MasuError
from controller.frozen import dataclass
from controller.model.attachment import Leases
from controller.model.attempts import Attempts
from controller.model.audit import Entry
from controller.model.checkpoint import (
    Checkpoint,
    Draft,
    Origin,
    Pending,
    Progress,
    Removal,
    TreeCopy,
)
from controller.model.counters import Tally
from controller.model.desired import DesiredSet
from controller.model.device import HostNode, Match, NodeSeen, Rules
from controller.model.device import Node as DeviceNode
from controller.model.disks import Backing, Disk
from controller.model.dump import CriuAbilities, Dumped, DumpOrder, Prospect, RestoreOrder
from controller.model.event import Event
from controller.model.facts import Facts
from controller.model.firewall import Firewall, Listener, Publication
from controller.model.grant import Grants
from controller.model.health import Health, Verdict
from controller.model.host_policy import HostPolicy, Paths
from controller.model.image import Amount, Image, Pins, Source
from controller.model.launch import Ended, ExitRecord, Init, LaunchRecipe
from controller.model.links import AddressSeen, Device, LinkChange, LinkSeen, RouteSeen
from controller.model.notice import Notice, Watch
from controller.model.process import IdMap, IdRange, MountSeen, ProcessStat, RuntimeState
from controller.model.queueing import Node, QueueingSeen
from controller.model.record import Record
from controller.model.secret import SecretFile
from controller.model.snapshot import Snapshot
from controller.model.space import NewSpace, Offer, Sort, Space, SpaceChange, SpaceSeen
from controller.model.status import Condition

if TYPE_CHECKING:
    from datetime import tzinfo


class Cgroups(Protocol):
    """cgroupfs. `group` is a path below every mount, such as /masu/default/web, in whatever budget it really is."""

    def children(self, group: str) -> frozenset[str]:
        """Names of the groups directly below, in any hierarchy."""
        ...

    def homes(self, group: str, peopled: Mapping[str, str] = ...) -> Mapping[str, tuple[str, ...]]:
        """Mount → where the group is on it, with all its files; without mounts on which it is not.

        In two places where somebody was killed in the middle of a move. `peopled`: mount → a group in which a
        process was just seen.
        """
        ...

    def populated(self, group: str) -> bool:
        """Whether a process is in the group or in one below it, in any hierarchy."""
        ...

    def place(self, group: str, budgets: Mapping[str, str], last: int) -> None:
        """`budgets`: mount → the budget to make it in, "" for none.

        Whoever is in it elsewhere is brought over, the process `last` at the end.
        """
        ...

    def remove(self, group: str, evict: Callable[[], None]) -> None:
        """`evict` is called while something is still in the group."""
        ...

    def read(self, group: str, subsystem: str, file: str) -> str | None: ...

    def write(self, group: str, subsystem: str, file: str, value: str) -> None: ...

    def enter(self, group: str, pid: int) -> None:
        """Move one process into the group in every hierarchy where it is not there yet."""
        ...


class Processes(Protocol):
    """/proc and signals. A pid is trusted only together with its start time."""

    def stat(self, pid: int) -> ProcessStat | None: ...

    def signal(self, pid: int, start_time: int, number: int) -> None: ...

    def namespaces(self, pid: int) -> Mapping[str, int]:
        """Namespace type → inode; pid 0 means masu itself. Empty when the process is gone."""
        ...

    def namespace(self, pid: int, kind: str) -> int:
        """The inode of that one; 0 when the process is gone."""
        ...

    def id_map(self, pid: int) -> IdMap | None: ...

    def groups(self, pid: int) -> Mapping[str, str]:
        """cgroup mount → path of the process below it."""
        ...

    def hasten(self) -> None:
        """Somebody will be moved into a cgroup soon, and shall not have to wait for that. Returns at once."""
        ...

    def kill(self, pid: int, start_time: int) -> None:
        """SIGKILL exactly the process that was started then, and wait for its end."""
        ...

    def kill_group(self, group: str) -> None:
        """SIGKILL everything in a cgroup and wait until it is empty."""
        ...


class Inside(Protocol):
    """Looking and touching from within a container's namespaces, without starting a process there."""

    def hostname(self, pid: int) -> str | None: ...

    def set_hostname(self, init: Init, name: str) -> None: ...

    def sysctl(self, pid: int, key: str) -> str | None: ...

    def set_sysctl(self, init: Init, key: str, value: str) -> None: ...

    def loopback_up(self, pid: int) -> bool | None: ...

    def raise_loopback(self, init: Init) -> None: ...

    def mounts(self, pid: int, wanted: Mapping[str, str]) -> Mapping[str, MountSeen] | None:
        """What is mounted on each target, links followed; nothing where no mount is. `wanted`: target → the
        host's path that should show there, or nothing. None when the process has ended.
        """
        ...

    def mount(self, init: Init, mount: Mapping[str, Any]) -> None:
        """Put one mount of the bundle config into the container's mount namespace, above what is there."""
        ...

    def unmount(self, init: Init, target: str) -> None:
        """Take the topmost mount away; one that is gone is fine."""
        ...

    def set_mount_options(self, init: Init, mount: Mapping[str, Any]) -> None:
        """Change the options of the topmost mount there, and of those below it, to those of `mount`."""
        ...


class Namespaces(Protocol):
    """Network namespaces that belong to masu, each with a container's name; the empty name is the host's own."""

    def names(self) -> frozenset[str]:
        """Also of what is half made or half removed."""
        ...

    def inode(self, name: str) -> int:
        """As in /proc/PID/ns/net; 0: there is none."""
        ...

    def make(self, name: str, *, low_ports: bool) -> None:
        """A new one, with its loopback up. `low_ports`: everybody in it may listen below 1024."""
        ...

    def keep(self, name: str, init: Init) -> None:
        """The one that a running container is in."""
        ...

    def remove(self, name: str) -> None: ...

    def setting(self, name: str, path: str) -> str | None:
        """A file below /proc/sys/net as seen in there."""
        ...

    def set_setting(self, name: str, path: str, value: str) -> None: ...


class Links(Protocol):
    """Links, addresses and routes. `where`: a container whose namespace masu keeps, or "" for the host's own."""

    def links(self, where: str) -> tuple[LinkSeen, ...] | None:
        """None: there is no such namespace."""
        ...

    def link(self, where: str, name: str) -> LinkSeen | None:
        """One of them, which costs less."""
        ...

    def addresses(self, where: str) -> tuple[AddressSeen, ...]: ...

    def routes(self, where: str) -> tuple[RouteSeen, ...]: ...

    def routes_over(self, where: str, link: int) -> tuple[RouteSeen, ...]:
        """Those that leave by one link, whatever others there are."""
        ...

    def change(self, where: str, changes: Sequence[LinkChange]) -> None:
        """In order, up to the first that fails. To take away what is gone is fine."""
        ...


class Queueing(Protocol):
    """Traffic control: how fast links may send. `where` as in Links; `index`: the link's number there."""

    def look(self, where: str, index: int) -> QueueingSeen | None:
        """None: there is no such namespace, or no such link in it."""
        ...

    def put(self, where: str, index: int, node: Node) -> None:
        """In place where the kernel can, so that what waits is not lost."""
        ...

    def take(self, where: str, index: int, node: Node) -> None:
        """Whatever masu has at the node's place. To take away what is gone is fine."""
        ...


class Devices(Protocol):
    """Links that the host gave to containers, by their marks: nothing else of a container's is the host's."""

    def lent(self, container: str) -> Mapping[str, Device]: ...

    def lend(self, container: str, mark: str, device: Device) -> None: ...

    def take_back(self, container: str, mark: str) -> None: ...

    def forget(self, container: str) -> None: ...


class Disks(Protocol):
    """Block devices. Looks only."""

    def behind(self, path: str) -> Backing:
        """Every whole device that what is under `path` is stored on; never raises for one that is not there."""
        ...

    def hardware(self) -> tuple[Disk, ...]:
        """The host's disks, without those that are made of others."""


class DeviceRules(Protocol):
    """Which device nodes the processes of a cgroup may open, and make. Raises HostLacks."""

    def state(self, group: str, rules: Rules) -> str | None:
        """Empty: exactly these are in force; else what is, in words; None: there is no such group."""
        ...

    def put(self, group: str, rules: Rules) -> None:
        """What is allowed before and after is never refused in between, unless everything was allowed before."""
        ...


class Hardware(Protocol):
    """The cpu and the device nodes of the host."""

    def cpu_features(self) -> tuple[str, ...]:
        """Instructions that programs may have found here and use. Sorted."""
        ...

    def at(self, path: str) -> HostNode | None: ...

    def matching(self, match: Match) -> tuple[HostNode, ...]: ...


class Nodes(Protocol):
    """Device nodes that masu has made below /dev of running containers."""

    def look(self, container: str, pid: int, places: Collection[str]) -> Mapping[str, NodeSeen] | None:
        """Place → what is there: of all that is masu's, and of `places`. None when the process has ended."""
        ...

    def put(self, container: str, init: Init, node: DeviceNode) -> None:
        """Also where another node is."""
        ...

    def take(self, container: str, init: Init, place: str) -> None:
        """One that is gone is fine."""
        ...


class PacketFilter(Protocol):
    """The instance's own table of nftables."""

    def state(self, firewall: Firewall) -> str | None:
        """Empty: as it should be; else what differs, in words; None: there is no table. Raises HostLacks."""
        ...

    def apply(self, firewall: Firewall) -> None: ...

    def remove(self) -> None: ...

    def present(self) -> bool: ...

    def published(self) -> frozenset[Publication]:
        """What the table leads to containers now, as far as masu has put it there."""
        ...

    def published_by_others(self) -> Mapping[str, frozenset[Publication]]:
        """Instance → what its table leads to its containers."""
        ...

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Allowance → (packets, bytes)."""
        ...


class Listeners(Protocol):
    """Programs of the host that wait for connections or datagrams."""

    def all(self) -> frozenset[Listener]: ...


class NameFiles(Protocol):
    """What is generated for /etc of a container."""

    def path(self, container: str, file: str) -> str: ...

    def names(self) -> frozenset[str]: ...

    def files(self, container: str) -> Mapping[str, str | None]:
        """Name → text, of each that may be there."""
        ...

    def write(self, container: str, file: str, text: str) -> None:
        """In place."""
        ...

    def remove(self, container: str) -> None: ...

    def resolvers(self) -> tuple[str, ...]:
        """The texts of the host's own resolver configuration."""
        ...


class Records(Protocol):
    """Volatile records of this instance, in /run."""

    def names(self) -> frozenset[str]: ...

    def read(self, name: str) -> Record | None: ...

    def write(self, record: Record) -> None: ...

    def remove(self, name: str) -> None: ...


class Runtimes(Protocol):
    """The OCI runtime, through the keeper."""

    def write_bundle(self, name: str, config: Mapping[str, Any], root: Mapping[str, Any]) -> None: ...

    def recipe(self, name: str, group: str, root: Mapping[str, Any]) -> LaunchRecipe:
        """How the runtime is to be called here for this container; changes nothing."""
        ...

    def absent(self, config: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[str, ...]:
        """Paths of this host that a launch needs and that are not there: asked before what runs is stopped."""
        ...

    def launch(self, recipe: LaunchRecipe) -> Init | None:
        """None: the runtime takes its time."""
        ...

    def launched(self, name: str) -> Init | None:
        """What became of such a launch; None as long as it is under way."""
        ...

    def adopt(self, name: str, init: Init) -> None:
        """Have the keeper look after an init that nobody lived to record. Raises StepFailed when it cannot."""
        ...

    def state(self, name: str, group: str) -> RuntimeState: ...

    def clear(self, name: str) -> None:
        """Remove what the runtime remembers of a container that has ended."""
        ...

    def forget(self, name: str) -> None:
        """Remove bundle, runtime state, exit record and logs."""
        ...

    def exit_of(self, name: str) -> ExitRecord | None:
        """As the keeper has written it down, after the last of its log."""
        ...

    def end_of(self, name: str, pid: int) -> Ended | None:
        """As the kernel tells it of an init that was tracked, whoever waits for it; None: not known."""
        ...


class Tallies(Protocol):
    """What was counted of containers, where a group that goes would take it along. In /run."""

    def number(self, group: str, subsystem: str) -> int:
        """One that no other group has or had; 0: there is none."""
        ...

    def read(self, name: str) -> Tally | None: ...

    def write(self, name: str, tally: Tally) -> None: ...

    def remove(self, name: str) -> None: ...


class AttemptLog(Protocol):
    """How the checkpoints of each container have gone. In /var/lib."""

    def read(self, name: str) -> Attempts | None: ...

    def write(self, name: str, attempts: Attempts) -> None: ...

    def remove(self, name: str) -> None: ...


class Criu(Protocol):
    """Processes to a directory of images and back. No policy: not when, not where to, not which."""

    def abilities(self) -> CriuAbilities:
        """What CRIU can do here; cheap from the second time on. Never raises for a CRIU that is missing."""
        ...

    def prospect(self, init: Init, group: str) -> Prospect:
        """Read-only. What a dump of this running container is certain to fail for, as far as can be seen before."""
        ...

    def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
        """The processes of a running container. Raises StepFailed, HostLacks.

        `while_frozen` is called when the images are complete and nothing runs yet: what it does, such as a snapshot
        of files, is of the very moment of the dump; what it raises ends the dump. Whatever fails, also masu itself,
        the container goes on running.
        """
        ...

    def pre_dump(self, order: DumpOrder) -> Dumped:
        """Memory alone, while the container runs on but for a moment; a dump that `resumes` it follows.

        Raises StepFailed, and HostLacks where the kernel does not track dirty pages.
        """
        ...

    def restore(self, order: RestoreOrder) -> Init | None:
        """In the place of a launch, with bundle, cgroups and namespaces prepared as for one. None: ask `restored`.

        Raises LaunchFailed; what is left of it is then cleared as after a launch that failed.
        """
        ...

    def restored(self, name: str) -> Init | None:
        """What became of such a restore; None as long as it is under way."""
        ...

    def mend(self, name: str, group: str) -> tuple[str, ...]:
        """Undo what a CRIU that somebody killed has left in a running container; what was found, in words."""
        ...


class Layers(Protocol):
    """Writable layers in /var/lib, and the id ranges leased with them."""

    def names(self) -> frozenset[str]: ...

    def state(self, name: str) -> str | None:
        """The frame digest that the layer was made for; empty for half a layer, None for none."""
        ...

    def prepare(self, name: str, frame: str, owner: int, *, sized: bool) -> None:
        """`sized`: in the container's space, which is there."""
        ...

    def remove(self, name: str) -> None: ...

    def range_of(self, name: str) -> IdRange | None: ...

    def lease_range(self, name: str) -> IdRange: ...

    def release_range(self, name: str) -> None: ...


class Images(Protocol):
    """Unpacked images, each of one digest, which nothing changes any more."""

    def names(self) -> frozenset[str]:
        """Digests of those that are whole."""
        ...

    def look(self, digest: str) -> Image | None: ...

    def resolve(self, source: Source, timeout_s: float) -> str:
        """Read-only. Ask the registry, or the layout, which digest it is.

        Raises ImageRefused, HostLacks, StepFailed.
        """
        ...

    def fetch(self, source: Source, digest: str, told: Callable[[Amount], None]) -> Image:
        """Have it here, whole and on disk, which may take minutes. Raises likewise."""
        ...

    def remove(self, digest: str) -> None:
        """Raises StepFailed where something is still mounted from it, and leaves it whole."""
        ...

    def sweep(self) -> None:
        """Remove what a masu that was killed has left half done."""
        ...

    def halt(self) -> None:
        """End every program that fetches, from now on."""
        ...


class Spaces(Protocol):
    """Disk space of a hard size, below the instance's own state."""

    def names(self, sort: Sort) -> frozenset[str]:
        """Also of what is half made or half removed."""
        ...

    def offer(self) -> Offer:
        """How a space would be made here, and how much room there is for all of them; a second old at most."""
        ...

    def look(self, space: Space) -> SpaceSeen | None: ...

    def make(self, space: Space, new: NewSpace) -> None:
        """An empty one, whole or not at all. What is half made or removed goes. Raises HostLacks."""
        ...

    def change(self, space: Space, change: SpaceChange) -> None:
        """Never makes it smaller than what is in it."""
        ...

    def remove(self, space: Space) -> None:
        """With all its data, also from under programs of the host that are in it."""
        ...


class Scratches(Protocol):
    """Room in memory for the images of one container at a time, with notes for whoever goes on."""

    def names(self) -> frozenset[str]:
        """For whom there is something: an interrupted dump or restore."""
        ...

    def room(self, name: str) -> int:
        """Bytes that one made now for `name` can hold: others get what they were made for."""
        ...

    def make(self, name: str, need: int) -> str:
        """An empty directory for about so many bytes of images; what was there before is gone.

        Raises StepFailed where there is no room for them.
        """
        ...

    def images(self, name: str) -> str:
        """The directory that `make` has made."""
        ...

    def note(self, name: str, key: str, text: str) -> None: ...

    def noted(self, name: str, key: str) -> str: ...

    def remove(self, name: str) -> None: ...


class Dumps(Protocol):
    """The files that a dump has made, which CRIU calls images."""

    def make_whole(self, directory: str) -> None:
        """A dump and the pre-dump that it resumed become one that needs no other; nothing to do without one.

        Raises StepFailed; then what is left of the images is of no use.
        """
        ...


class Snapshots(Protocol):
    """What is in a container's writable layer and in its volumes, at one moment. Raises StepFailed.

    `trees`: UPPER, and those of volumes (`model.checkpoint`).
    """

    def take(
        self, name: str, trees: Sequence[str], min_free: int, *, ahead: bool = False
    ) -> tuple[TreeCopy, ...]:
        """Copies; blocks are shared where the file system can do that. `min_free`: bytes that stay free.

        `ahead`: while the container runs, what is large: the next call takes what has changed since.
        """
        ...

    def drop(self, name: str) -> None:
        """Remove the copies, if there are some."""
        ...

    def incoming(self, name: str, trees: Sequence[str]) -> Mapping[str, str]:
        """Tree → where to make the files that are to come: nothing is there. Raises HostLacks, too."""
        ...

    def swap(self, name: str) -> None:
        """The files that have come are in force; those that were are kept beside them."""
        ...

    def put_back(self, name: str) -> None:
        """As it was before `incoming`, however far that came. The container must not run."""
        ...

    def settle(self, name: str) -> None:
        """What was kept is thrown away."""
        ...

    def pending(self, name: str) -> Pending: ...


class CheckpointStores(Protocol):
    def at(self, key_file: str) -> CheckpointStore:
        """The instance's store, with that key for what is sealed; "": none."""
        ...

    def checkpoints(self, container: str) -> tuple[Checkpoint, ...]:
        """As the store's own, which needs no key; cheap where there never was a checkpoint."""
        ...

    def hindrances(self, key_file: str, min_free: int) -> Iterable[MasuError]:
        """Why nothing could be stored now, with that key and that room left: each as the error that it will be."""
        ...

    def check_export(self, path: str, need: int) -> None:
        """Whether an archive with so many bytes of memory can be written there. Raises StepFailed."""
        ...

    def config(self, identity: str, key_file: str) -> Mapping[str, Any]:
        """The bundle config that is kept with a checkpoint, without secrets; empty: there is none to be read."""
        ...

    def lineage(self, container: str) -> str | None:
        """What was noted last; None: nothing."""
        ...

    def note_lineage(self, container: str, lineage: str) -> None:
        """For what comes after a reboot; an empty one is forgotten. Raises StepFailed."""
        ...


class CheckpointStore(Protocol):
    """Checkpoints that are whole, or said not to be. `did`: told of progress, from within.

    Raises StepFailed (CheckpointDamaged, StoreBusy) and, where a package or the key is missing, HostLacks.
    """

    def checkpoints(self, container: str) -> tuple[Checkpoint, ...]:
        """Oldest first; of all containers for "". A quick look, also without the key: see `Checkpoint.damage`."""
        ...

    def save(self, draft: Draft, min_free: int, did: Progress) -> Checkpoint:
        """It is listed when it is whole and on disk, or not at all. `min_free`: bytes that have to stay free."""
        ...

    def verify(self, identity: str) -> tuple[str, ...]:
        """Everything that is wrong with it, read to the last byte; nothing means whole."""
        ...

    def restore(
        self,
        identity: str,
        images: str,
        roots: Mapping[str, str],
        did: Progress,
        moves: Mapping[str, Moves] | None = None,
    ) -> Checkpoint:
        """Make CRIU's image directory, and snapshots: `roots` maps names of trees to where to make them, `moves` to
        whose files in them become somebody else's.

        All these directories are empty or absent. Half of it may be there when it fails.
        """
        ...

    def remove(self, identities: Collection[str], did: Progress) -> Removal:
        """And give back the space that only they took. What is gone already is fine; none: only tidy up."""
        ...

    def export_to(self, identity: str, path: str) -> tuple[str, ...]:
        """One archive in podman's layout, .tar, .tar.zst or .tar.gz. → what could not go into it."""
        ...

    def import_from(
        self, path: str, origin: Origin, foreign: bool, min_free: int, did: Progress
    ) -> Checkpoint:
        """`origin`: what is known here; an archive of masu's own knows more. Raises ArchiveRefused."""
        ...


class Commands(Protocol):
    """Commands in containers, as `masu exec` runs them."""

    def run(self, name: str, group: str, init: Init, wanted: Notice | Health) -> tuple[int, str]:
        """→ (exit code, 124 after its time-out, and the last line that it said). Takes as long as it takes."""
        ...


class Verdicts(Protocol):
    """What this masu has found out about the health of containers, until it is written into their records."""

    def read(self, name: str, init: Init, health: Health) -> Verdict | None:
        """Of that run, and by that check."""
        ...

    def say(self, name: str, init: Init, health: Health, verdict: Verdict) -> None: ...

    def forget(self, name: str) -> None: ...


class Secrets(Protocol):
    """Secrets of the host, and what containers have of them. Nobody is told what is in them."""

    def lacks(self, secret: str, *, variable: bool) -> str:
        """Why it cannot be had, in words; "": it can."""
        ...

    def given(self, container: str, variables: Mapping[str, str]) -> frozenset[str]:
        """Of variable → secret: those that the container was started with as they are now."""
        ...

    def shown(self, container: str, files: Collection[SecretFile]) -> frozenset[str] | None:
        """Targets of those that are as they are to be; None: nothing at all is there."""
        ...

    def put(self, container: str, files: Collection[SecretFile], owner: int) -> None:
        """Each at once. `owner`: who is root inside. Raises StepFailed."""
        ...

    def remove(self, container: str) -> None: ...


class Audit(Protocol):
    """What masu did to the host, for those who ask later. Never raises: what cannot be written is counted."""

    def revise(self, revision: str) -> None:
        """From now on this version of the desired set is in force."""
        ...

    def append(self, entries: Collection[Entry]) -> None:
        """All of a look at once; it is in the file when this returns, and on the disk a second later."""
        ...


class Clock(Protocol):
    """Time as an argument."""

    def now_ms(self) -> int:
        """Milliseconds since boot, sleep included: no deadline moves when somebody sets the clock."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, for people to read."""
        ...

    def sleep_ms(self, duration: int) -> None: ...

    def zone(self) -> tzinfo:
        """The host's, as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """Everything the steps may touch and the aspects may look at."""

    instance: str
    facts: Facts
    cgroups: Cgroups
    processes: Processes
    inside: Inside
    records: Records
    runtime: Runtimes
    layers: Layers
    images: Images
    spaces: Spaces
    clock: Clock
    namespaces: Namespaces
    links: Links
    names: NameFiles
    devices: Devices
    disks: Disks
    device_rules: DeviceRules
    hardware: Hardware
    nodes: Nodes
    queueing: Queueing
    firewall: PacketFilter
    listeners: Listeners
    tallies: Tallies
    criu: Criu
    scratches: Scratches
    dumps: Dumps
    snapshots: Snapshots
    checkpoints: CheckpointStores
    attempts: AttemptLog
    commands: Commands
    verdicts: Verdicts
    secrets: Secrets
    audit: Audit


class SourcePort(Protocol):
    """Where the desired state comes from. `snapshot` raises SourceUnreadable."""

    def snapshot(self) -> Snapshot: ...


class PolicyPort(Paths, Protocol):
    """What specs may ask of this host. Looks only."""

    def read(self) -> HostPolicy | None:
        """None where nobody has written one. Raises NotPermitted, StepFailed, SpecInvalid."""
        ...


class Store(Protocol):
    """The last good desired set, kept across restarts."""

    def load(self) -> DesiredSet: ...

    def save(self, desired: DesiredSet) -> None: ...


class LeaseStore(Protocol):
    """Addresses that were given, kept across restarts."""

    def load(self) -> Leases: ...

    def save(self, leases: Leases) -> None: ...


class PinStore(Protocol):
    """Which image each container has."""

    def load(self) -> Pins: ...

    def save(self, pins: Pins) -> None: ...


class GrantStore(Protocol):
    """What containers were admitted with, kept until the next boot."""

    def load(self) -> Grants: ...

    def save(self, grants: Grants) -> None: ...


class Conditions(Protocol):
    """What is to be said of each container, where `masu status` finds it."""

    def read(self, name: str) -> tuple[Condition, ...]: ...

    def save(self, name: str, conditions: tuple[Condition, ...]) -> None: ...

    def remove(self, name: str) -> None: ...

    def keep(self, names: Collection[str]) -> None:
        """Remove what is said of anybody else."""
        ...


class EventLog(Protocol):
    """Tells people: the event file and the console."""

    def event(self, event: Event) -> None: ...


class Triggers(Protocol):
    """Descriptors by which the kernel tells that a container is about to be in want."""

    def arm(self, name: str, group: str, wanted: Collection[Watch]) -> Mapping[Watch, str]:
        """These and no others; what is armed already costs a look at the group. → what cannot be, and why."""
        ...

    def arm_again(self, name: str, watch: Watch) -> None:
        """After it has woken somebody, which it does once; what has been in between is passed over."""
        ...

    def disarm(self, name: str) -> None: ...


class Tracker(Protocol):
    """Nudges from the kernel about one container."""

    def watch_group(self, name: str, group: str) -> bool:
        """Whether it was not watched before: it may have changed since it was looked at."""
        ...

    def watch_init(self, name: str, pid: int) -> None:
        """Instead of any that was watched before; 0 for none."""
        ...

    def watch_mounts(self, name: str, pid: int) -> bool:
        """The mount table of that process, likewise; whether it was not watched before."""
        ...

    def watch_host_mounts(self, name: str) -> bool:
        """The host's own mount table, likewise."""
        ...

    def watch_network(self, name: str, where: str | None, links: Collection[str]) -> bool:
        """Everything in the namespace of the container `where`, None: in none; and these links of the host.

        Whether something is watched anew, likewise.
        """
        ...

    def watch_firewall(self, name: str) -> bool:
        """The instance's own table of the packet filter, likewise."""
        ...

    def watch_devices(self, name: str, *, wanted: bool) -> bool:
        """The host's devices, as far as the kernel tells when one comes or goes, likewise."""
        ...

    def untrack(self, name: str) -> None: ...
