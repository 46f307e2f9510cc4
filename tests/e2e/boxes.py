"""Dumps and restores by hand, through the port: what a schedule or a ladder would do, without either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from controller.app.wiring import App
from controller.app.wishes import wishes_of
from controller.host.ports import Host
from controller.model.dump import Dumped, DumpOrder, RestoreOrder
from controller.model.launch import Init
from controller.reconcile.desired import desire
from controller.settings import Settings
from controller.steps.devices import nodes_made
from controller.steps.freezer import end
from controller.steps.runtime import id_mapping
from tests.e2e.harness import Masu

PROGRAMS = "/opt/masu/rootfs/programs"
TIMEOUT_MS = 30_000

TALKER = """
import socket, sys
with socket.create_connection(("127.0.0.1", 7000), timeout=15) as sock, sock.makefile("rwb") as stream:
    for line in sys.stdin.buffer:
        stream.write(line)
        stream.flush()
        sys.stdout.buffer.write(stream.readline())
        sys.stdout.buffer.flush()
"""


class Box:
    """One container of an instance, and a directory on a tmpfs for its images."""

    def __init__(self, masu: Masu, name: str = "web") -> None:
        os.umask(0o022)
        self.masu, self.name = masu, name
        self.app = App.build(Settings(instance=masu.instance, runtime=masu.runtime), runtime=True)
        self.group = self.app.places.group_of(name)
        self.images = Path(f"/dev/shm/masu-{masu.instance}-{name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.images, ignore_errors=True)

    @property
    def host(self) -> Host:
        return self.app.host

    @property
    def init(self) -> Init:
        record = self.host.records.read(self.name)
        assert record
        return Init(record.pid, record.start_time)

    def dump(self, while_frozen: Callable[[], None] = lambda: None, **order: Any) -> Dumped:
        shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir(0o700)
        whole = DumpOrder(self.name, self.init, str(self.images), **{"timeout_ms": TIMEOUT_MS, **order})
        return self.host.criu.dump(whole, while_frozen)

    def end(self) -> None:
        """As the plan does it with a container that has ended."""
        end(self.host, self.group, self.host.records.read(self.name))
        self.host.runtime.clear(self.name)

    def restore(self) -> Init:
        """And write down who it is, as a step would."""
        order = RestoreOrder(self.name, self.group, self._root(), str(self.images), TIMEOUT_MS)
        init = self.host.criu.restore(order)
        while init is None:
            time.sleep(0.01)
            init = self.host.criu.restored(self.name)
        record = self.host.records.read(self.name)
        assert record
        self.host.records.write(replace(record, pid=init.pid, start_time=init.start_time))
        return init

    def _root(self) -> dict[str, Any]:
        wish = wishes_of(self.app, self.app.store.load(), ())[self.name]
        frame = desire(wish, self.host.facts).frame
        ids = id_mapping(self.host, self.name, frame)
        nodes = nodes_made(self.host, frame.claims, ids)
        return {
            **frame.root,
            "nodes": nodes,
            **({"ids": {"uids": ids.uids, "gids": ids.gids}} if ids else {}),
        }

    def execute(self, command: str) -> str:
        done = self.masu.run("exec", self.name, "--", "/bin/sh", "-c", command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def exit_record(self) -> dict[str, Any]:
        path = Path(f"/run/masu/{self.masu.instance}/keeper/exits/{self.name}.json")
        value: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return value


class Talker:
    """Somebody outside of the container with a connection to it: a line there, a line back."""

    def __init__(self, masu: Masu, name: str = "web") -> None:
        network = f"--net=/run/masu/{masu.instance}/netns/{name}"
        self._process = subprocess.Popen(
            ["nsenter", network, sys.executable, "-S", "-c", TALKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, line: str) -> str:
        """ "" when the connection is gone."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()
