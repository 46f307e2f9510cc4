"""limits.pids: how many tasks a container may have. Source: Documentation/admin-guide/cgroup-v1/pids.rst."""

from __future__ import annotations

from typing import Any

from controller.aspects._knobs import Knob, KnobAspect, live_keys, mapping
from controller.errors import HostLacks
from controller.model.facts import Facts


class Pids(KnobAspect):
    name = "pids"
    section = "limits.pids"
    keys = live_keys("pids", ("max",))

    def parse(self, section: Any, facts: Facts) -> tuple[Knob, ...] | None:
        """Pure. The same file on v1 and v2. A limit below the current count only stops new tasks."""
        written = mapping(section)
        if "max" not in written:
            return None
        if facts.version("pids") is None:
            raise HostLacks("limits.pids: the kernel or the cgroup layout has no pids subsystem")
        value = str(written["max"])
        return (Knob("pids.max", "pids", "pids.max", value, value),)
