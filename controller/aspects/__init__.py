"""The list of aspects, in the order in which they are observed and their steps are printed.

A new limit is one file here, one schema section, one folder of cases, and one line below.
"""

from __future__ import annotations

from typing import Any

from controller.aspects._base import Aspect
from controller.aspects.cgroup import Cgroup
from controller.aspects.cpu import Cpu
from controller.aspects.hostname import Hostname
from controller.aspects.life import Life
from controller.aspects.memory import Memory
from controller.aspects.mounts import Mounts
from controller.aspects.namespaces import Namespaces
from controller.aspects.pids import Pids
from controller.aspects.process import Process
from controller.aspects.rootfs import Rootfs
from controller.aspects.state import State
from controller.aspects.sysctls import Sysctls

ASPECTS: tuple[Aspect[Any, Any], ...] = (
    Cgroup(),
    Cpu(),
    Memory(),
    Pids(),
    Rootfs(),
    Namespaces(),
    Process(),
    Mounts(),
    Hostname(),
    Sysctls(),
    Life(),
    State(),
)
