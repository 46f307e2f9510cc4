"""The composition root: the only place that knows which driver serves which port."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.checkpoints.policy import Policy
from controller.checkpoints.request import Request
from controller.errors import (
    GuardRefused,
    InstanceBusy,
    LaunchFailed,
    MasuError,
    Problem,
    SpecInvalid,
    StepFailed,
)
from controller.frozen import dataclass
from controller.host import facts as host_facts
from controller.host import service
from controller.host.alone import InstanceLock, holder
from controller.host.attempts import AttemptFiles
from controller.host.audit import AuditFile
from controller.host.cgroups.device_rules import DeviceRules
from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import CgroupTree
from controller.host.checkpoints.stores import LocalStores
from controller.host.clock import SystemClock
from controller.host.control import SYNC, ControlSocket, ask, listens, me
from controller.host.criu_lazily import LazyCriu
from controller.host.devices import DeviceFiles
from controller.host.disks import HostDisks
from controller.host.errands import Errands
from controller.host.grants import GrantFile
from controller.host.halves import in_halves
from controller.host.hardware import SysfsHardware
from controller.host.images import ImageStore
from controller.host.inside import NamespaceInside
from controller.host.journal import Journal
from controller.host.keeping import KeeperClient
from controller.host.layers import LayerDirectories
from controller.host.leases import LeaseFile
from controller.host.listeners import Listeners
from controller.host.name_files import NameFiles
from controller.host.namespaces import KeptNamespaces
from controller.host.network_watch import NetworkWatch
from controller.host.nftables import NftablesFirewall
from controller.host.nodes import DeviceNodes
from controller.host.oci import OciRuntime
from controller.host.oci_exec import exec_inside
from controller.host.pins import PinFile
from controller.host.places import Places
from controller.host.policy_file import PolicyFile
from controller.host.ports import EventLog, Host, SourcePort
from controller.host.processes import ProcDirectory
from controller.host.queueing import TrafficControl
from controller.host.records import RecordFiles
from controller.host.rtnetlink import Rtnetlink
from controller.host.ruleset_bridge import Scope
from controller.host.scratch import ScratchDirectories
from controller.host.secrets import SecretFiles
from controller.host.snapshots import FileSnapshots
from controller.host.spaces.choice import spaces_in
from controller.host.spaces.twins import Twins
from controller.host.store import ConditionFiles, DesiredFile
from controller.host.tallies import TallyFiles
from controller.host.text import read_text
from controller.host.triggers import TriggerFiles
from controller.host.trust import AS_GOOD_AS_ROOT, distrust
from controller.host.uevents import DeviceWatch
from controller.host.verdicts import Verdicts
from controller.host.visits import Visits
from controller.host.watch import KernelWatch
from controller.host.whole_dumps import WholeDumps
from controller.loop.acting import Acting
from controller.loop.controller import Controller, work
from controller.loop.daemon import Daemon
from controller.loop.door import Door
from controller.loop.farewell import Farewell
from controller.loop.ladder import Ladder
from controller.loop.notices import NobodyNotices, Notices, Noticing
from controller.loop.probes import NobodyProbes, Probes
from controller.loop.pulls import Pulls
from controller.loop.pulls import remove as remove_images
from controller.loop.queue import WorkQueue
from controller.loop.requests import Requests
from controller.loop.take_down import deny_grace, set_rules, take_down
from controller.loop.timetable import Timetable
from controller.loop.warden import Warden, barred
from controller.model import marks
from controller.model.audit import Entry, Outcome, Peer
from controller.model.checkpoint import Checkpoint
from controller.model.desired import DesiredSet
from controller.model.event import Event
from controller.model.grant import Grants
from controller.model.host_policy import AsWritten, HostPolicy, Paths
from controller.model.image import Choice
from controller.model.launch import Init
from controller.model.node import NodeStatus, node_in
from controller.model.resource import CONTAINER, GROUP, NETWORK, VOLUME, Resource, key_of, kind_of
from controller.model.space import VOLUME_SORT, Space
from controller.model.status import LIMITED, Condition, ContainerStatus, LastCheckpoint
from controller.reconcile import guard, inventory
from controller.reconcile.admission import House
from controller.reconcile.apply import Failpoint
from controller.reconcile.audit import do
from controller.reconcile.capacity import foresee, in_force, node_status
from controller.reconcile.checkpointing import mend
from controller.reconcile.desired import NO_IMAGES, Desired, Named, Wish, desire, guarantee, resolve
from controller.reconcile.images import foresee_images, look_up, unused, wants_in
from controller.reconcile.leases import without
from controller.reconcile.plan import Plan, existing, plan, present, recorded, removal, subject_of
from controller.reconcile.preflight import PART, Verdict, verdict
from controller.reconcile.reconciler import Reconciler
from controller.reconcile.status import (
    group_status,
    last_checkpoints,
    network_status,
    status_of,
    volume_status,
)
from controller.report import narrate
from controller.report.preview import Overview, Preview
from controller.settings import POLICY, SECRETS, Settings
from controller.spec.accept import Judge, accept, across, whole
from controller.spec.across import users
from controller.spec.host_policy import excesses, forbidden
from controller.steps._base import Stage
from controller.steps.checkpointing import DUMPING, NOTE, ClearScratch
from controller.steps.freezer import frozen_by
from controller.steps.runtime import DOES_NOT_FIT, IMAGE_UNKNOWN, NOT_ALLOWED
from controller.version import VERSION

if TYPE_CHECKING:  # a command that reads no source waits for none of this
    from controller.report.comparison import Comparison
    from controller.sources.git import GitSource
    from controller.sources.layers import LayeredDirectory

    Source = LayeredDirectory | GitSource

POLL_S, WAIT_S = 0.005, 0.1
READ_S = 10.0
"""How long whoever has fetched waits for it to be read."""
MARGIN_S = 10.0
STILL_USED = Condition(
    "Waiting", status=True, reason="StillUsed", message="not touched: somebody is left who may be using it"
)


@contextmanager
def _borrowed(controller: Controller, name: str) -> Iterator[None]:
    """Nobody else works on it, nor asks it anything."""
    with controller.probes.paused(name), controller.queue.borrow(name) as ours:
        if not ours:
            raise StepFailed("masu is being stopped")
        yield


def _synced(source: Source, daemon: Daemon, controller: Controller) -> Mapping[str, Any]:
    """Fetch now. → the revision that was found, if the source has such, and what of it is not in force.

    Raises SourceUnreadable.
    """
    try:
        commit = source.sync()
    except MasuError:
        daemon.reload()
        raise
    daemon.reload_now(READ_S)
    taken = controller.taken
    said = {"rejected": [str(each) for each in taken.rejected], "frozen": taken.frozen}
    return {**said, **({"commit": commit.id, "subject": commit.subject} if commit else {})}


def _answering(
    requests: Requests, sync: Callable[[], Mapping[str, Any]]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What the daemon answers on its control socket."""

    def answer(value: Mapping[str, Any]) -> Mapping[str, Any]:
        if value == SYNC:
            return sync()
        try:
            request = Request.from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise StepFailed(f"not understood: {error}") from error
        if request.ends:
            raise GuardRefused(
                "a daemon runs, which would start the container again: write state: stopped in its spec"
                " after a checkpoint, or stop the daemon first"
            )
        return requests.answer(request)

    return answer


class Tellers:
    """Every event to several listeners. Telling never raises: whoever reads the log may go, and repairs go on."""

    def __init__(self, *listeners: Callable[[Event], object]) -> None:
        self._listeners = listeners

    def event(self, event: Event) -> None:
        for listener in self._listeners:
            with suppress(Exception):
                listener(event)


Left = Mapping[str, tuple[Condition, ...]]
"""What could not be removed, and why."""


@dataclass(frozen=True, slots=True)
class App:
    """Everything wired for one instance on this host."""

    settings: Settings
    places: Places
    host: Host
    homes: Homes
    namespaces: KeptNamespaces
    firewall: NftablesFirewall
    journal: Journal
    keeper: KeeperClient
    store: DesiredFile
    leases: LeaseFile
    grants: GrantFile
    pins: PinFile
    conditions: ConditionFiles
    policy: PolicyFile
    audit: AuditFile

    @classmethod
    def build(cls, settings: Settings, *, runtime: bool) -> App:
        """Read-only. `runtime`: also ask which OCI runtime works here, which costs a process."""
        places = Places(settings.instance, settings.run_root, settings.state_root, settings.log_root)
        found = host_facts.look(host_facts.runtime(settings.runtime) if runtime else None)
        keeper = KeeperClient(places.keeper, places.logs, service.open_files())
        homes = Homes(found)
        processes = ProcDirectory(homes)
        secrets = SecretFiles(places, SECRETS, settings.identity)
        runs = OciRuntime(places, homes, keeper, processes, secrets.variable)
        visits, spaces = Visits(), spaces_in(places)
        namespaces = KeptNamespaces(places.namespaces, visits)
        scope = Scope(marks.table_name(settings.instance), *marks.prefixes(settings.instance))
        firewall = NftablesFirewall(scope, places.ruleset, places.rulesets)
        audit = AuditFile(places.audit)
        host = Host(
            instance=settings.instance,
            facts=found,
            cgroups=CgroupTree(homes),
            processes=processes,
            inside=NamespaceInside(visits),
            records=RecordFiles(places.records),
            runtime=runs,
            layers=LayerDirectories(places),
            images=ImageStore(places.images, found.machine),
            spaces=spaces,
            clock=SystemClock(),
            namespaces=namespaces,
            links=Rtnetlink(namespaces),
            names=NameFiles(places.names),
            devices=DeviceFiles(places.devices),
            disks=HostDisks("/sys"),
            device_rules=DeviceRules(homes),
            hardware=SysfsHardware("/sys"),
            nodes=DeviceNodes(places.bundles, visits),
            queueing=TrafficControl(namespaces),
            firewall=firewall,
            listeners=Listeners(),
            tallies=TallyFiles(homes, places.counters),
            criu=LazyCriu(runs),
            scratches=ScratchDirectories(places.scratch),
            dumps=WholeDumps(),
            snapshots=FileSnapshots(places, Twins(spaces, places.spaces)),
            checkpoints=LocalStores(places.checkpoints),
            attempts=AttemptFiles(places.attempts),
            commands=Errands(homes, places),
            verdicts=Verdicts(),
            secrets=secrets,
            audit=audit,
        )
        store, conditions = DesiredFile(places, VERSION), ConditionFiles(places.conditions)
        leases, grants = LeaseFile(places.leases), GrantFile(places.grants, found.boot_id)
        journal, pins = Journal(places.events), PinFile(places.pins)
        policy = PolicyFile(settings.policy or POLICY, _parse_policy, needed=bool(settings.policy))
        files = (journal, keeper, store, leases, grants, pins, conditions, policy, audit)
        return cls(settings, places, host, homes, namespaces, firewall, *files)

    def run(self, source: str) -> None:
        """The daemon: converge and keep converged until SIGTERM; containers go on running."""
        self._check(source)
        found = self._source(source)
        with self._alone(patient=True), self._controller(found, notices=True) as (controller, told, acting):
            self._mend(told)
            daemon = Daemon(
                controller, self.host, told, workers=self.settings.workers, resync_s=self.settings.resync_s
            )
            service.raise_open_files()
            files = found.watch(daemon.reload)

            def stop() -> None:
                daemon.stop()
                files.wait_no_more()

            def reread() -> None:
                """Also without anything new there: a tag may have moved, and a policy may have come."""
                controller.pulls.ask_anew()
                daemon.reload()
                files.hurry()

            service.on_signals(stop, reread)
            watches = self._watches(daemon.reload, controller.resync)
            watches.callback(files.close)
            self.keeper.guard(lambda held: told.event(self._keeper_replaced(held)))
            control = ExitStack()
            requests = self._requests(controller, told, acting)
            timetable = Timetable(self.host, told, controller.containers, requests.at_its_time)

            def ready() -> None:
                answer = _answering(requests, lambda: _synced(found, daemon, controller))
                control.callback(ControlSocket(self.places.control, answer, self._heard).close)
                control.callback(timetable.close)
                timetable.start()
                self._heard(me(), {"verb": "run"}, None)
                self._ready(source, told)

            def leave(urged: Callable[[float], bool]) -> None:
                service.notify("STOPPING=1")
                watches.close()  # with what is being fetched, or whoever has asked for it would be waited for
                control.close()
                self._last_checkpoints(controller, told, requests, urged)

            try:
                daemon.run(
                    ready,
                    lambda: service.notify("WATCHDOG=1"),
                    service.watchdog_interval_s(),
                    leave,
                )
            finally:
                watches.close()
                control.close()
            told.event(self._stopped())

    def _last_checkpoints(
        self,
        controller: Controller,
        told: EventLog,
        requests: Requests,
        urged: Callable[[float], bool],
    ) -> None:
        """When the host itself stops, whoever has one ends with it: nothing that happens later is lost."""
        wait_s, ends = self.settings.last_wait_s, False

        def act(name: str, patience_s: float) -> None:
            with controller.probes.paused(name):
                requests.at_the_end(name, patience_s, ends=ends)

        farewell = Farewell(self.host, told, controller.containers, act, wait_s)
        if farewell.names:
            service.notify(f"EXTEND_TIMEOUT_USEC={round((wait_s + MARGIN_S) * 1_000_000)}")
            ends = service.host_stops()
            farewell.say(urged)
        for name in self.host.scratches.names():  # what is still being stored is given up: memory is dear
            if self.host.scratches.noted(name, NOTE):
                with suppress(MasuError):
                    do(ClearScratch(name), self.host, self._failpoint())

    def apply(self, source: str, wait_s: float) -> tuple[bool, Controller]:
        """Converge once, for at most `wait_s` seconds. → whether everything converged."""
        self._check(source)
        found = self._source(source)
        with (
            self._alone(),
            self._asked("apply") as undone,
            self._controller(found, notices=False) as (controller, told, _),
        ):
            self._mend(told)
            threads = [
                threading.Thread(target=work, args=(controller, told, self.host), daemon=True)
                for _ in range(self.settings.workers)
            ]
            for thread in threads:
                thread.start()
            controller.reload()
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and not (controller.settled() or controller.stuck()):
                time.sleep(POLL_S)
            controller.queue.close()
            for thread in threads:
                thread.join(timeout=5)
            controller.pulls.close()
            self._tidy_images(told)
            if not controller.settled():
                undone.append("not everything has converged")
            return controller.settled(), controller

    def plan(self, source: str) -> Preview:
        """Read-only. What `apply` would do."""
        from controller.sources.choice import passing_source_of  # noqa: PLC0415

        refused = self._untrusted(source)
        if refused:
            return Preview((), (), (), "", refused, ())
        before = self.store.load()
        root_only = not self.settings.unsafe_source
        found = passing_source_of(source, self.settings, root_only=root_only).snapshot()
        policy = self.policy.read()
        judge = partial(forbidden, policy=policy, paths=self.policy)
        after = accept(before, found, _parse, self.host.facts.layout, judge, self.settings.node)
        if self.settings.atomic or found.atomic:
            after = whole(before, after)
        left = present(self.places.group, self.host)
        known = recorded(self.host) | set(before.containers)
        images, unknown = foresee_images(after.resources, self.pins.load, self.host)
        wishes = self._wishes(after, left, {name: each.choice for name, each in images.items()})
        removed = frozenset[str]() if after.frozen else left - set(wishes)
        wanted = [desire(each, self.host.facts) for _, each in sorted(wishes.items())]
        plans = {each.name: self._planned(each) for each in wanted}
        let_in = foresee(after.resources, plans, self.grants.load(), self.host.facts)
        for name in let_in.kept:
            granted = in_force(wishes[name], let_in.grants[name])
            plans[name] = self._planned(desire(granted, self.host.facts))
        guaranteed = guarantee(self._named(), after.resources, let_in.waiting)
        plans[guaranteed.key] = self._planned(desire(guaranteed, self.host.facts))
        forbidden_births = self._forbidden(after, plans, policy)
        born = [
            each
            for name, each in plans.items()
            if name not in let_in.waiting and name not in forbidden_births
        ]
        removals = [removal(name, self.places.group_of(name), self.host) for name in sorted(removed)]
        return Preview(
            plans=tuple(each for each in (*born, *removals) if each.changes),
            removed=tuple(sorted(removed)),
            rejected=after.rejected,
            frozen=after.silence,
            refused=_refusal(
                known, removed & known, self.settings.allow_removals, (before.source, after.source)
            ),
            lacks=tuple(
                (each.name, lack) for each in wanted for lack in (*each.lacks, *plans[each.name].lacks)
            ),
            limited=tuple(
                (name, said)
                for name, each in plans.items()
                for said in (*each.remarks, *let_in.remarks(name))
                if said.type == LIMITED
            ),
            waits=(
                *((name, why) for name, each in plans.items() for why in each.hindrances),
                *((name, f"{DOES_NOT_FIT}: {why}") for name, why in let_in.unfit.items()),
                *((name, f"{NOT_ALLOWED}: {why}") for name, why in forbidden_births.items()),
                *(
                    (name, f"{said.reason}: {said.message}")
                    for name, each in images.items()
                    if (said := each.hindrance)
                ),
                *((name, f"{IMAGE_UNKNOWN}: {why}") for name, why in unknown.items()),
            ),
            unfit=(*let_in.unfit, *forbidden_births),
            node=self._node(after, let_in.grants, let_in.unfit),
        )

    def _forbidden(
        self, desired: DesiredSet, plans: Mapping[str, Plan], policy: HostPolicy | None
    ) -> dict[str, str]:
        """Read-only. Who would be born and may not be, and why."""
        born = [name for name, each in plans.items() if any(one.stage is Stage.BIRTH for one in each.steps)]
        found = {name: self._barred(name, desired, policy) for name in born}
        return {name: why for name, why in found.items() if why}

    def _barred(self, name: str, desired: DesiredSet, policy: HostPolicy | None) -> str:
        """Read-only. Why a container may not be born on this host, in words; "": it may."""
        wanted = desired.resources.get(name)
        if policy is None or wanted is None:
            return ""
        return barred(excesses(wanted, desired.resources, policy, self.policy))

    def _planned(self, desired: Desired) -> Plan:
        return plan(desired, self.places.group_of(desired.name), self.host)

    def _node(self, desired: DesiredSet, grants: Grants, waiting: Collection[str]) -> NodeStatus:
        house = House.of(desired.resources, self.host.facts)
        return node_status(node_in(desired.resources), house, grants, waiting)

    def status(self, name: str = "") -> Overview:
        """Read-only. What is desired, and what is observed now, with or without a daemon.

        `name`: only the container, the network, the group and the volume of that name.
        """
        desired = self.store.load()
        left = existing(self.places.group, self.host)
        wishes = self._wishes(desired, left)
        names = {*desired.containers, *left}
        chosen = sorted(names if not name else names & {name})
        networks = [each for each in desired.of_kind(NETWORK).values() if name in {"", each.name}]
        last, daemon = last_checkpoints(self.host) if chosen else {}, holder(self.places.lock)

        def look(names: Sequence[str]) -> list[ContainerStatus]:
            self.namespaces.open_sockets(names)
            return [
                self._status_of(each, wishes.get(each), last.get(each), kept=bool(daemon)) for each in names
            ]

        containers = tuple(in_halves(look, chosen))
        volumes = {each for each in desired.of_kind(VOLUME) if name in {"", each}} | self.put_by(name)
        return Overview(
            desired,
            containers,
            tuple(network_status(each, wishes, self.host, self.conditions) for each in networks),
            tuple(
                group_status(each, wishes, desired.resources, self.places.group, self.host, self.conditions)
                for each in desired.of_kind(GROUP).values()
                if name in {"", each.name}
            ),
            tuple(
                volume_status(each, wishes, self.host, self.places.spaces, self.conditions)
                for each in sorted(volumes)
            ),
            None if name else self._promised(desired, containers),
            daemon,
        )

    def _promised(self, desired: DesiredSet, containers: Collection[ContainerStatus]) -> NodeStatus:
        """Read-only. What those who are there were given."""
        names = {each.name for each in containers}
        given = {name: each for name, each in self.grants.load().items() if name in names}
        waiting = [each.name for each in containers for one in each.conditions if one.reason == DOES_NOT_FIT]
        return self._node(desired, given, waiting)

    def down(
        self, keys: tuple[str, ...], wait_s: float, *, now: bool, volumes: bool
    ) -> tuple[set[str], Left]:
        """Remove what this instance has by these keys, or all of it. → what was removed, and what could not be.

        `now`: without the grace that the containers' specs give them. `volumes`: with all the data in them; a
        volume whose key is among `keys` goes with its data in any case.
        """
        with self._alone(), self._asked("down", " ".join(keys)) as undone:
            told = Tellers(self.journal.append)
            self._mend(told)
            reconciler = Reconciler(self.host, self.places.group, self._failpoint())
            there = present(self.places.group, self.host)
            kept = {key_of(VOLUME, each) for each in self.put_by()}
            every = there | kept | inventory.owners(self.host)
            chosen = set(keys) & every if keys else every
            self._refuse_used(chosen, there)
            if now:
                deny_grace(chosen, self.host)
            last, until_ms = {each for each in chosen if kind_of(each) == VOLUME}, int(wait_s * 1000)
            left: Left = take_down(chosen - last, reconciler, self.host, told, deadline_ms=until_ms)
            if left:  # they may be using them
                left = {**left, **dict.fromkeys(last, (STILL_USED,))}
            else:
                set_rules(last, self.host, keep=not (keys or volumes))
                left = take_down(last, reconciler, self.host, told, deadline_ms=until_ms)
            undone.extend(f"{each} is left" for each in sorted(left))
            gone = chosen - set(left)
            granted = self.grants.load()
            stay = (
                granted.keys() - gone if keys else set(left)
            )  # else also what never came so far as to be there
            self.grants.save({name: each for name, each in granted.items() if name in stay})
            for each in gone:
                self.conditions.remove(each)
                if keys or left:
                    self.leases.save(without(self.leases.load(), each))
            self._forget_images(gone, last=not keys and not left)
            if not keys and not left:
                self.leases.save({})  # also those of a damaged file
                self.store.clear()
                inventory.clear(self.host, self._failpoint())
            if not present(self.places.group, self.host):
                self.keeper.stop()
                self.places.sweep()
            return {*chosen} - {*left} - {key_of(VOLUME, each) for each in self.put_by()}, left

    def execute(self, name: str, command: tuple[str, ...]) -> int:
        """Run a command inside a running container; returns its exit code."""
        service.require_root()
        group = self.places.group_of(name)
        subject = subject_of(name, group, self.host)
        if not subject.pid:
            known = name in existing(self.places.group, self.host)
            raise StepFailed(f"container {name} is not running" if known else f"there is no container {name}")
        if frozen_by(self.host, group):
            raise StepFailed(f"container {name} is frozen: a command in it would be, too")
        self.audit.revise(self.store.load().revision)
        self._heard(me(), {"verb": "exec", "container": name}, None)
        return exec_inside(self.homes, self.places, name, group, subject.init, command)

    def act(self, request: Request) -> Mapping[str, Any]:
        """Do what is asked, or have the daemon do it that holds this instance. Raises MasuError."""
        service.require_root()
        try:
            with self._alone(), self._asked(request.verb, request.container):
                return self._act(request)
        except InstanceBusy:
            answer = ask(self.places.control, request.to_json())
            if answer is None:
                raise
            return answer

    def _act(self, request: Request) -> Mapping[str, Any]:
        """Without a daemon."""
        told = Tellers(self.journal.append)
        self._mend(told)
        reconciler = Reconciler(self.host, self.places.group, self._failpoint())

        def look(name: str) -> None:
            """What was done to the container is looked at once."""
            wanted = self._wanted(name)
            if wanted:
                result = reconciler.converge(wanted[0], lambda *_: None)
                for event in narrate.events(result, edited=True, at=self.host.clock.wall_ms()):
                    told.event(event)

        acting = Acting(lambda _: None)

        def barred(name: str) -> str:
            return self._barred(name, self.store.load(), self.policy.read())

        requests = Requests(
            self.host, self._failpoint(), told, self._wanted, lambda _: nullcontext, look, acting, barred
        )
        try:
            return requests.answer(request)
        finally:
            self.keeper.close()

    def _wanted(self, name: str) -> tuple[Desired, str] | None:
        """Read-only. What a container is to be, with the limits that it was granted."""
        desired = self.store.load()
        wish = self._wishes(desired, existing(self.places.group, self.host)).get(name)
        if wish is None or kind_of(name) != CONTAINER:
            return None
        grant = self.grants.load().get(name)
        wanted = desire(in_force(wish, grant) if grant else wish, self.host.facts)
        return wanted, self.places.group_of(name)

    def _requests(self, controller: Controller, told: EventLog, acting: Acting) -> Requests:
        """What the daemon does when it is asked, or when the time has come."""

        def wanted(name: str) -> tuple[Desired, str] | None:
            found = controller.wanted(name)
            return (found, self.places.group_of(name)) if found else None

        def hold(name: str) -> Callable[[], AbstractContextManager[object]]:
            return lambda: _borrowed(controller, name)

        barred = controller.warden.why
        return Requests(self.host, self._failpoint(), told, wanted, hold, controller.restored, acting, barred)

    def _mend(self, told: EventLog) -> None:
        """What a masu that was killed in the middle of a checkpoint, or of a pull, has left."""
        with suppress(MasuError):
            self.host.images.sweep()
        for name, said in mend(self.host, self.places.group_of, self._failpoint()):
            message = f"a checkpoint was interrupted: {said}"
            told.event(Event(self.host.clock.wall_ms(), name, "Mended", message))

    def preflight(self, name: str) -> dict[str, Verdict]:
        """Read-only. By container: of one, or of all for "". Raises StepFailed."""
        desired = self.store.load()
        wishes = self._wishes(desired, existing(self.places.group, self.host))
        chosen = [each for each in sorted(desired.containers) if name in {"", each} and each in wishes]
        if name and not chosen:
            raise StepFailed(f"there is no container {name}")
        wanted = [desire(wishes[each], self.host.facts) for each in chosen]
        return {each.name: verdict(self.host, each, self.places.group_of(each.name)) for each in wanted}

    def checkpoints(self, name: str, *, verify: bool) -> tuple[Checkpoint, ...]:
        """Read-only. Of one container, or of all for ""; `verify`: each is read to its end. Raises StepFailed."""
        found = inventory.listed(self.host, name, self._policy if verify else None)
        if name and not (
            found or name in self.store.load().containers or name in existing(self.places.group, self.host)
        ):
            raise StepFailed(f"there is no container {name}")
        return found

    def check_export(self, name: str, path: str) -> None:
        """Before the container is ended for it. Raises StepFailed where its archive could not be written."""
        service.require_root()
        service.set_umask()
        wanted = self._wanted(name)
        need = verdict(self.host, *wanted).needed if wanted else 0
        self.host.checkpoints.check_export(os.path.abspath(path), need)

    def export_checkpoint(self, identity: str, path: str) -> tuple[str, ...]:
        """→ what could not go into the archive."""
        service.require_root()
        service.set_umask()
        return inventory.export(self.host, identity, os.path.abspath(path), self._policy)

    def remove_checkpoint(self, identity: str) -> Checkpoint:
        """→ the one that is gone. A daemon need not know: it looks into the store whenever it wants one."""
        service.require_root()
        self.audit.revise(self.store.load().revision)
        with self._asked("checkpoint remove"):
            found = inventory.remove(self.host, identity, self._policy, self._failpoint())
        at, said = self.host.clock.wall_ms(), f"{identity}, by hand"
        self.journal.append(Event(at, found.container, "CheckpointRemoved", said))
        return found

    def import_checkpoint(self, path: str, name: str) -> Checkpoint:
        """`name`: of the container that it is to be of; "": as the archive says."""
        service.require_root()
        service.set_umask()
        policy = self.policy.read()
        why = policy.archives("import") if policy else ""
        if policy and why:
            raise GuardRefused(f"not allowed by rule checkpoints of {policy.file}: {why}")
        foreign = bool(policy and not policy.archives("foreign"))
        return inventory.take_in(self.host, os.path.abspath(path), name, self._policy, foreign=foreign)

    @contextmanager
    def imported(self, path: str, name: str) -> Iterator[str]:
        """The id of what is in an archive, to restore it. One that does not fit, or cannot be restored for now,
        leaves nothing; once the container was ended for it, it stays.
        """
        identity = self.import_checkpoint(path, name).id
        try:
            yield identity
        except LaunchFailed:
            raise
        except MasuError:
            inventory.give_up(self.host, identity)
            raise

    def _policy(self, name: str) -> Policy:
        """Read-only. What the container's spec says of checkpoints; the defaults where there is no spec."""
        wanted = self._wanted(name) if name else None
        policy: Policy = wanted[0].parts[PART] if wanted else Policy()
        return policy

    def put_by(self, only: str = "") -> frozenset[str]:
        """Read-only. Names of the volumes that are there, defined by a file or not; `only`: look at no other."""
        names = self.host.spaces.names(VOLUME_SORT)
        chosen = names & {only} if only else names
        found = {each: self.host.spaces.look(Space(VOLUME_SORT, each)) for each in chosen}
        return frozenset(name for name, each in found.items() if each and each.exists)

    def _refuse_used(self, chosen: Collection[str], there: Collection[str]) -> None:
        """A volume is not taken away under a container. Raises GuardRefused."""
        resources = self.store.load().resources
        for key in chosen:
            used_by = users(resources[key], resources.values()) if key in resources else ()
            left = [each for each in used_by if each.key in there and each.key not in chosen]
            if left and kind_of(key) == VOLUME:
                raise GuardRefused(f"{key} is used by {left[0].title}: remove that first")

    def _wishes(
        self, desired: DesiredSet, left: Collection[str], images: Mapping[str, Choice] | None = None
    ) -> Mapping[str, Wish]:
        """Read-only. With the addresses that were given, and those that would be; `images`: not those of now."""
        resources = desired.resources
        leaving = {*left} - set(resources)
        chosen = self._images(resources) if images is None else images
        return resolve(self._named(), resources, self.leases.load(), leaving, images=chosen)[0]

    def _images(self, resources: Mapping[str, Resource]) -> Mapping[str, Choice]:
        """Read-only."""
        if not wants_in(resources):
            return NO_IMAGES
        found = look_up(resources, self.pins.load, self.host)
        return {name: each.choice for name, each in found.items()}

    def _tidy_images(self, told: EventLog) -> None:
        with suppress(MasuError):
            remove_images(unused(self.pins.load(), self.host), self.host, self._failpoint(), told)

    def _forget_images(self, gone: Collection[str], *, last: bool) -> None:
        """Of containers that were removed. `last`: nobody is left, and the file may be damaged."""
        told = Tellers(self.journal.append)
        try:
            before = {} if last else self.pins.load()
            self.pins.save({name: each for name, each in before.items() if name not in gone})
        except MasuError as error:
            at, message = self.host.clock.wall_ms(), f"those of what was removed: {error}"
            told.event(Event(at, "", "ImageKept", message, level="warning"))
        self._tidy_images(told)

    def _named(self) -> Named:
        return Named(self.places.instance, self.places.names, self.places.spaces, self.places.secrets)

    def _status_of(
        self, name: str, wish: Wish | None, last: LastCheckpoint | None, *, kept: bool
    ) -> ContainerStatus:
        dumping = bool(kept and self.host.scratches.noted(name, DUMPING))
        group = self.places.group_of(name)
        return status_of(name, wish, group, self.host, self.conditions, last, dumping=dumping, kept=kept)

    @contextmanager
    def _alone(self, *, patient: bool = False) -> Iterator[None]:
        """`patient`: who does one thing only, such as a restore by hand, is waited for; another daemon is not."""
        service.require_root()
        service.set_umask()
        lock = self._lock(patient=patient)
        self.audit.revise(self.store.load().revision)
        try:
            yield
        finally:
            self.audit.close()
            lock.release()

    def _lock(self, *, patient: bool) -> InstanceLock:
        while True:
            try:
                return InstanceLock(self.places.lock, self.settings.instance)
            except InstanceBusy:
                if not patient or listens(self.places.control):
                    raise
                time.sleep(WAIT_S)

    @contextmanager
    def _asked(self, verb: str, container: str = "") -> Iterator[list[str]]:
        """What somebody has asked this very process for is in the audit log, with how it ended.

        → for what was not done, in words. But to apply what is converged is no write at all.
        """
        request, before, undone = {"verb": verb, "container": container}, self.audit.lines, list[str]()
        try:
            yield undone
        except MasuError as error:
            self._heard(me(), request, error)
            raise
        if undone:
            self._heard(me(), request, StepFailed(", ".join(undone)))
        elif verb != "apply" or self.audit.lines != before:
            self._heard(me(), request, None)

    def _heard(self, peer: Peer, request: Mapping[str, Any], error: MasuError | None) -> None:
        """Of a request that was answered."""
        at, verb = self.host.clock.wall_ms(), str(request.get("verb", "unknown"))
        outcome: Outcome = "done" if error is None else "refused" if not error.retry else "failed"
        said = str(error or "")
        name = str(request.get("container", ""))
        self.audit.append((Entry(at, name, outcome, why=said, request=verb, peer=peer),))

    @contextmanager
    def _controller(
        self, source: SourcePort, *, notices: bool
    ) -> Iterator[tuple[Controller, EventLog, Acting]]:
        """`notices`: with somebody who notices when a container is in want, and who asks whether it is well."""
        told = self._teller()
        self.audit.told = lambda said: told.event(
            Event(self.host.clock.wall_ms(), "", "AuditLost", said, level="warning")
        )
        triggers = TriggerFiles(self.homes, lambda name, watch: noticing.wake(name, watch))  # noqa: PLW0108
        noticing = self._noticing(told, triggers) if notices else NobodyNotices()
        work_queue = WorkQueue()
        acting = Acting(work_queue.add)
        probing = Probes(self.host, told, self._self(), work_queue.add) if notices else NobodyProbes()
        watch = KernelWatch(
            self.homes,
            work_queue.add,
            lambda: controller.resync(),  # noqa: PLW0108  # it is made below
            lambda said: told.event(Event(self.host.clock.wall_ms(), "", "Blind", said, level="warning")),
            NetworkWatch(self.namespaces, self.firewall),
            DeviceWatch(),
            triggers,
        )
        pulls = Pulls(
            self.host,
            self._failpoint(),
            told,
            self.pins,
            lambda: controller.retake(),  # noqa: PLW0108
            work_queue.add,
            once=not notices,
        )
        controller = Controller(
            self.host,
            Reconciler(self.host, self.places.group, self._failpoint()),
            self._named(),
            source,
            self.store,
            self.leases,
            Door(self.host, self.grants),
            Warden(self.host, self.policy, told),
            Ladder(self.host, self._failpoint(), told, acting, self.places.group_of, probing.paused),
            pulls,
            self.conditions,
            told,
            watch,
            noticing,
            probing,
            _parse,
            work_queue,
            allow_removals=self.settings.allow_removals,
            atomic=self.settings.atomic,
            node=self.settings.node,
        )
        try:
            yield controller, told, acting
        finally:
            pulls.close()
            probing.close()
            noticing.close()
            watch.close()
            self.keeper.close()

    def _self(self) -> Init:
        stat = self.host.processes.stat(os.getpid())
        return Init(os.getpid(), stat.start_time if stat else 0)

    def _noticing(self, told: EventLog, triggers: TriggerFiles) -> Noticing:
        return Notices(self.host, told, triggers, self.host.commands)

    def _failpoint(self) -> Failpoint:
        return service.failpoint(self.settings.fail_at, self.settings.trace_steps)

    def _watches(self, nudge: Callable[[], None], resync: Callable[[], None]) -> ExitStack:
        """On the policy and the secrets of the host. What comes later is found by the resync."""
        from controller.sources.watch import Watch  # noqa: PLC0415

        watches = ExitStack()
        if self.policy.read():
            watches.callback(Watch(self.policy.path, nudge).close)
        if os.path.isdir(SECRETS):
            watches.callback(Watch(SECRETS, resync).close)
        return watches

    def _check(self, source: str) -> None:
        """Raises GuardRefused, NotPermitted, SpecInvalid."""
        refused = self._untrusted(source)
        if refused:
            raise refused

    def _untrusted(self, source: str) -> GuardRefused | None:
        """Read-only. Whoever decides what is desired is root, or bound by a policy. One that is not there may come.

        Raises NotPermitted and SpecInvalid.
        """
        from controller.sources.choice import path_of  # noqa: PLC0415

        policy, path = self.policy.read(), path_of(source)
        if self._is_trusted():
            return None
        if not path and policy is None:
            ways = f"write {self.policy.path}, or say --require-signature or --allow-unsafe-source"
            return GuardRefused(f"whoever may push to {source} is as good as root: {ways}")
        with suppress(OSError):
            if path and (why := distrust(path)):
                return GuardRefused(f"source {source} is not root's alone: {why}; {AS_GOOD_AS_ROOT}")
        why = self._doubt(source)
        return GuardRefused(f"source {source} {why}") if why else None

    def _doubt(self, source: str) -> str:
        """Read-only. Why a repository on this host is not to be fetched: others write it, and are not bound."""
        from controller.sources.choice import path_of  # noqa: PLC0415
        from controller.sources.git_trust import distrusted  # noqa: PLC0415
        from controller.sources.git_url import is_git  # noqa: PLC0415

        if not is_git(source) or self._is_trusted() or self._is_bound():
            return ""
        path = path_of(source)
        why = distrusted(path) if path else ""
        return f"is not root's alone: {why}; {AS_GOOD_AS_ROOT}" if why else ""

    def _is_trusted(self) -> bool:
        """Whoever writes the source may, or what he writes has to be signed."""
        return self.settings.unsafe_source or bool(self.settings.signers)

    def _is_bound(self) -> bool:
        """Read-only. Not by a policy that cannot be read."""
        with suppress(MasuError):
            return self.policy.read() is not None
        return False

    def _source(self, source: str) -> Source:
        from controller.sources.choice import source_of  # noqa: PLC0415

        return source_of(source, self.settings, self.places.git, lambda: self._doubt(source))

    def _teller(self) -> EventLog:
        from controller import log  # noqa: PLC0415

        log.configure(
            verbose=self.settings.verbose, log_format=self.settings.log_format, colours=sys.stderr.isatty()
        )
        return Tellers(self.journal.append, log.Console().event)

    def _keeper_replaced(self, held: int) -> Event:
        message = (
            f"the keeper had ended and was replaced; the new one looks after {held} container{'s' * (held != 1)};"
            " what the old one was just writing may be missing from the logs"
        )
        return Event(self.host.clock.wall_ms(), "", "KeeperReplaced", message, level="warning")

    def _stopped(self) -> Event:
        left = len(existing(self.places.group, self.host))
        message = f"{left} container{'s' * (left != 1)} left running; `masu down --all` removes them"
        return Event(self.host.clock.wall_ms(), "", "Stopped", message if left else "nothing is left")

    def _ready(self, source: str, told: EventLog) -> None:
        service.notify(f"READY=1\nMAINPID={os.getpid()}")
        message = f"watching {source} as instance {self.settings.instance}"
        told.event(Event(self.host.clock.wall_ms(), "", "Ready", message))


def _parse(text: bytes, file: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """The YAML and schema libraries are loaded with the first file that has to be parsed, not before."""
    from controller.spec.parse import parse  # noqa: PLC0415

    return parse(text, file)


def _parse_policy(text: bytes, file: str, paths: Paths) -> HostPolicy:
    from controller.spec.host_policy import parse_policy  # noqa: PLC0415

    return parse_policy(text, file, paths)


def validate(paths: tuple[str, ...], settings: Settings) -> tuple[tuple[Problem, ...], int, int]:
    """Read-only, and of the files alone: every problem in every spec file below `paths`; how many documents there
    are, those of a base each time that something is laid over it; and in how many files.

    The policy, if one is named, is that of a host that they are meant for, whoever this copy of it belongs to.
    Symbolic links are not followed then: those there are not known here. Raises SpecInvalid where it is wrong.
    """
    from controller.sources.choice import passing_source_of  # noqa: PLC0415
    from controller.spec.explain import without_overlays  # noqa: PLC0415

    problems: list[Problem] = []
    known, documents = DesiredSet(), 0
    judge = _judge_of(settings)
    for path in paths:
        found = passing_source_of(path, settings).snapshot()
        accepted = accept(DesiredSet(), found, _parse, "", node=settings.node)
        problems.extend(without_overlays(accepted.rejected))
        known = replace(known, files={**known.files, **accepted.files})
        documents += sum(len(each.resources) + len(each.elsewhere) for each in accepted.files.values())
    problems.extend(across(known, judge))
    return tuple(sorted(set(problems))), documents, len(known.files)


def _judge_of(settings: Settings) -> Judge:
    """By the policy that is named, of a host that is not here. Raises SpecInvalid."""
    policy = _policy_at(settings.policy) if settings.policy else None
    return partial(forbidden, policy=policy, paths=AsWritten())


def _policy_at(path: str) -> HostPolicy:
    text = read_text(path)
    if text is None:
        raise SpecInvalid((Problem(path, 0, 0, "", "No such file"),))
    return _parse_policy(text.encode("utf-8", "surrogateescape"), path, AsWritten())


def against(base: str, source: str, settings: Settings) -> Comparison:
    """Read-only, and of the files alone: what `source` changes where `base` is in force."""
    from controller.model.snapshot import moved_to  # noqa: PLC0415
    from controller.reconcile.compare import compare  # noqa: PLC0415
    from controller.report.comparison import Comparison  # noqa: PLC0415
    from controller.sources.choice import passing_source_of, root_of  # noqa: PLC0415

    known = passing_source_of(base, settings).snapshot()
    found = passing_source_of(source, settings).snapshot()
    judge = _judge_of(settings)
    moved = moved_to(known, root_of(base), root_of(source))
    before = accept(DesiredSet(), moved, _parse, "", judge, settings.node)
    after = accept(before, found, _parse, "", judge, settings.node)
    if settings.atomic or found.atomic:
        after = whole(before, after)
    removed = set(before.containers) - set(after.containers)
    refused = _refusal(set(before.containers), removed, settings.allow_removals)
    rejected = {*after.rejected, *across(after, judge)}
    elsewhere = {each.key for state in after.files.values() for each in state.elsewhere} - set(
        after.resources
    )
    changes = compare(before.resources, after.resources)
    return Comparison(changes, tuple(sorted(rejected)), after.silence, refused, len(elsewhere))


def _refusal(
    present: Collection[str],
    removed: Collection[str],
    allowed: bool,
    moved: tuple[str, str] = ("", ""),
) -> GuardRefused | None:
    try:
        guard.check_removals(present, removed, allowed=allowed, moved=moved)
    except GuardRefused as error:
        return error
    return None
