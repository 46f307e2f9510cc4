"""The Commands port: each command gets a small process of its own that watches over it (`timed_exec`)."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from controller.host.cgroups.homes import Homes
from controller.host.command import output
from controller.host.oci_exec import way_in
from controller.host.places import Places
from controller.host.timed_exec import BOOT, Order
from controller.model.health import Health
from controller.model.launch import Init
from controller.model.notice import Notice

HERE = str(Path(__file__).parents[2])
MARGIN_S = 10.0
"""What the small process may need beyond the command's own time, on a host that has none to spare."""


class Errands:
    """Every method may be called from any thread."""

    def __init__(self, homes: Homes, places: Places) -> None:
        self._homes, self._places = homes, places
        self._numbers = itertools.count()

    def run(self, name: str, group: str, init: Init, wanted: Notice | Health) -> tuple[int, str]:
        """Raises HostLacks without a runtime."""
        pid_file = f"{self._places.bundles}/{name}/exec-{os.getpid()}-{next(self._numbers)}.pid"
        options = ("--pid-file", pid_file)
        way = way_in(self._homes, self._places, name, group, init, options, wanted.command)
        order = Order(way, pid_file, group, wanted.timeout_ms / 1000)
        argv = [sys.executable, "-I", "-S", "-B", "-c", BOOT, HERE, order.to_line()]
        status, said = output(argv, order.timeout_s + MARGIN_S)
        return status, (said.strip().splitlines() or [""])[-1]
