"""The list of aspects, in the order in which they are observed and their steps are printed.

A new limit is one file here, one schema section, one folder of cases, and one line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Aspect
from controller.aspects.addresses import Addresses
from controller.aspects.bandwidth import Bandwidth
from controller.aspects.bridge import Bridge
from controller.aspects.bridge_settings import BridgeSettings
from controller.aspects.cgroup import Cgroup
from controller.aspects.checkpoint import Checkpoint
from controller.aspects.counters import Counters
from controller.aspects.cpu import Cpu
from controller.aspects.devices import Devices
from controller.aspects.forwarding import Forwarding
from controller.aspects.funnels import Funnels
from controller.aspects.gateways import Gateways
from controller.aspects.guarantees import Guarantees
from controller.aspects.health import HealthCheck
from controller.aspects.hostname import Hostname
from controller.aspects.hugepages import HugePages
from controller.aspects.interfaces import Interfaces
from controller.aspects.io import Io, SharedIo
from controller.aspects.life import Life
from controller.aspects.memory import Memory
from controller.aspects.mounts import Mounts
from controller.aspects.names import Names
from controller.aspects.namespaces import Namespaces
from controller.aspects.net_settings import NetSettings
from controller.aspects.netns import Netns
from controller.aspects.notify import Notify
from controller.aspects.pids import Pids
from controller.aspects.ports import Ports
from controller.aspects.process import Process
from controller.aspects.rootfs import Rootfs
from controller.aspects.routes import Routes
from controller.aspects.ruleset import Ruleset
from controller.aspects.secrets import Secrets
from controller.aspects.state import State
from controller.aspects.sysctls import Sysctls
from controller.aspects.volume import Volume
from controller.model.resource import CONTAINER, FIREWALL, GROUP, INSTANCE, NETWORK, VOLUME

ASPECTS: tuple[Aspect[Any, Any], ...] = (
    Cgroup(),
    Cpu(),
    Memory(),
    HugePages(),
    Pids(),
    Io(),
    Devices(),
    Rootfs(),
    Namespaces(),
    Process(),
    Mounts(),
    Hostname(),
    Sysctls(),
    Netns(),
    Interfaces(),
    NetSettings(),
    Addresses(),
    Routes(),
    Bandwidth(),
    Ports(),
    Names(),
    Secrets(),
    Notify(),
    Counters(),
    Life(),
    HealthCheck(),
    Checkpoint(),
    State(),
)

GROUP_ASPECTS: tuple[Aspect[Any, Any], ...] = (
    Cgroup(),
    Cpu(),
    Memory(),
    Pids(),
    SharedIo(),
    HugePages(),
)

NETWORK_ASPECTS: tuple[Aspect[Any, Any], ...] = (
    Bridge(),
    Gateways(),
    BridgeSettings(),
    Funnels(),
)

FIREWALL_ASPECTS: tuple[Aspect[Any, Any], ...] = (
    Ruleset(),
    Forwarding(),
)

VOLUME_ASPECTS: tuple[Aspect[Any, Any], ...] = (Volume(),)

ASPECTS_OF: Mapping[str, tuple[Aspect[Any, Any], ...]] = {
    CONTAINER: ASPECTS,
    GROUP: GROUP_ASPECTS,
    INSTANCE: (Guarantees(),),
    NETWORK: NETWORK_ASPECTS,
    FIREWALL: FIREWALL_ASPECTS,
    VOLUME: VOLUME_ASPECTS,
}
"""By kind of what is converged."""
