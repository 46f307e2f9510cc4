"""The Commands port: each command gets a small process of its own that watches over it (`timed_exec`)."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from controller.errors import StepFailed
from controller.host.cgroups.homes import Homes
from controller.host.oci_exec import way_in
from controller.host.places import Places
from controller.host.timed_exec import BOOT, Order
from controller.model.health import Health
from controller.model.launch import Init
from controller.model.notice import Notice
from controller.model.process import CANNOT_RUN, TIMED_OUT

HERE = str(Path(__file__).parents[2])
MARGIN_S = 10.0
"""What the small process may need beyond the command's own time, on a host that has none to spare."""


class Errands:
    """Every method may be called from any thread."""

    def __init__(self, homes: Homes, places: Places) -> None:
        self._homes, self._places = homes, places
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._orders: socket.socket | None = None

    def run(self, name: str, group: str, init: Init, wanted: Notice | Health) -> tuple[int, str]:
        """Raises HostLacks without a runtime, StepFailed."""
        pid_file = f"{self._places.bundles}/{name}/exec-{os.getpid()}-{next(self._numbers)}.pid"
        options = ("--pid-file", pid_file)
        way = way_in(self._homes, self._places, name, group, init, options, wanted.command)
        order = Order(way, pid_file, group, wanted.timeout_ms / 1000)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._hand_over(theirs)
            return _answer(ours, order)

    def _hand_over(self, theirs: socket.socket) -> None:
        """To the program that is there for that; one that somebody has killed is started anew."""
        with self._lock:
            for _ in range(2):
                self._orders = self._orders or _begin()
                try:
                    socket.send_fds(self._orders, [b"x"], [theirs.fileno()])
                except OSError as error:
                    why = error
                    self._orders.close()
                    self._orders = None
                else:
                    return
        raise StepFailed(f"nobody is there to run a command: {why}") from why


def _begin() -> socket.socket:
    """It ends when this end is closed, and so with masu."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-I", "-S", "-B", "-c", BOOT, HERE, str(theirs.fileno())]
    with theirs:
        try:
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise StepFailed(f"no program for commands can be started: {error}") from error
    return ours


def _answer(ours: socket.socket, order: Order) -> tuple[int, str]:
    """What came of it. Who is silent was killed, or is frozen with the container."""
    ours.settimeout(order.timeout_s + MARGIN_S)
    try:
        ours.sendall(f"{order.to_line()}\n".encode())
        with ours.makefile(encoding="utf-8", errors="replace") as lines:
            status, said = lines.readline().strip(), lines.readline().strip()
    except TimeoutError:
        return TIMED_OUT, ""
    except OSError as error:
        return CANNOT_RUN, str(error)
    return int(status) if status.isdigit() else CANNOT_RUN, said
