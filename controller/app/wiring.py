"""The composition root: which driver serves which port."""

from __future__ import annotations

from controller.app.parsing import parse_policy
from controller.frozen import dataclass
from controller.host import facts as host_facts
from controller.host import service
from controller.host.attempts import AttemptFiles
from controller.host.audit import AuditFile
from controller.host.cgroups.device_rules import DeviceRules
from controller.host.cgroups.homes import Homes
from controller.host.cgroups.tree import CgroupTree
from controller.host.checkpoints.stores import LocalStores
from controller.host.clock import SystemClock
from controller.host.criu_lazily import LazyCriu
from controller.host.devices import DeviceFiles
from controller.host.disks import HostDisks
from controller.host.errands import Errands
from controller.host.grants import GrantFile
from controller.host.hardware import SysfsHardware
from controller.host.images import ImageStore
from controller.host.inits import Inits
from controller.host.inside import NamespaceInside
from controller.host.journal import Journal
from controller.host.keeping import KeeperClient
from controller.host.layers import LayerDirectories
from controller.host.leases import LeaseFile
from controller.host.listeners import Listeners
from controller.host.name_files import NameFiles
from controller.host.namespaces import KeptNamespaces
from controller.host.nftables import NftablesFirewall
from controller.host.nodes import DeviceNodes
from controller.host.oci import OciRuntime
from controller.host.pins import PinFile
from controller.host.places import Places
from controller.host.policy_file import PolicyFile
from controller.host.ports import Host
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
from controller.host.verdicts import Verdicts
from controller.host.visits import Visits
from controller.host.whole_dumps import WholeDumps
from controller.model import marks
from controller.reconcile.apply import Failpoint
from controller.reconcile.desired import Named
from controller.settings import POLICY, SECRETS, Settings
from controller.version import VERSION


@dataclass(frozen=True, slots=True)
class App:
    """Everything wired for one instance on this host."""

    settings: Settings
    places: Places
    host: Host
    homes: Homes
    inits: Inits
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
        homes, inits = Homes(found), Inits()
        processes = ProcDirectory(homes)
        secrets = SecretFiles(places, SECRETS, settings.identity)
        runs = OciRuntime(places, homes, keeper, processes, inits, secrets.variable)
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
        policy = PolicyFile(settings.policy or POLICY, parse_policy, needed=bool(settings.policy))
        files = (journal, keeper, store, leases, grants, pins, conditions, policy, audit)
        return cls(settings, places, host, homes, inits, namespaces, firewall, *files)

    def failpoint(self) -> Failpoint:
        """Where tests kill it."""
        return service.failpoint(self.settings.fail_at, self.settings.trace_steps)

    def named(self) -> Named:
        return Named(self.places.instance, self.places.names, self.places.spaces, self.places.secrets)
