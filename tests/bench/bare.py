"""The same containers started by hand: a shell in one private mount namespace that calls the OCI runtime itself."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.marks import announcing
from tests.bench.world import ROOTFS, RUNTIME, World, cgroup_mounts, end_volatile, make_volatile

CGROUP_ROOT = "/sys/fs/cgroup"
LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 << 20},
    "cpu": {"quota": 50_000, "period": 100_000},
    "pids": {"limit": 32},
}


class Shell:
    """In a mount namespace of its own; what it says goes to `errors`."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._shell = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "/bin/sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def do(self, script: str, wait_s: float = 120) -> None:
        """Run it in the shell. Raises RuntimeError when it fails, TimeoutError when it does not end."""
        self.begin(script)
        self.finish(script, wait_s)

    def begin(self, script: str) -> float:
        """→ the moment; the caller finishes it."""
        stdin = self._shell.stdin
        assert stdin
        at = time.monotonic()
        stdin.write(f"{{ {script}\n}} </dev/null >/dev/null 2>>{self._errors}\necho $?\n".encode())
        stdin.flush()
        return at

    def finish(self, script: str, wait_s: float = 120) -> None:
        stdout = self._shell.stdout
        assert stdout
        if not select.select([stdout], [], [], wait_s)[0]:
            raise TimeoutError(script)
        said = stdout.readline().strip()
        if said != b"0":
            raise RuntimeError(f"{script}: exit code {said!r}: {self._errors.read_text()[-500:]}")

    def end(self) -> None:
        """With what it has started, and its mounts."""
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


class Bare(Shell):
    """`limits`: the runtime makes the cgroups and sets the limits, as far as it can on this layout; without them

    it makes no cgroup at all. Root file systems are overlays, mounted beforehand. Everything lies on the same file
    systems as masu's own things.
    """

    def __init__(self, world: World, name: str, *, limits: bool) -> None:
        self._world, self._limits = world, limits
        own_name = f"{world.instance}-{name}"
        self.base, self._layers = Path("/run") / own_name, Path("/var/lib") / own_name
        make_volatile(self.base)
        self._layers.mkdir()
        self._group = f"/{own_name}"
        self._runtime = shutil.which(RUNTIME, path=f"/opt/masu/bin:{os.environ['PATH']}")
        own = "" if limits else "--cgroup-manager=disabled"
        self.command = f"{self._runtime} --root {self.base}/state {own}"
        super().__init__(self.base / "errors")
        self.do(_make_room(limits=limits))

    def prepare(
        self, wanted: Iterable[str], template: str, network: Callable[[str], str] | None = None
    ) -> None:
        """Bundles like the one that masu wrote for `template`, each with an overlay of its own.

        `network`: the path of each one's network namespace, "" for a new one.
        """
        config = json.loads((self._world.run_dir / "bundles" / template / "config.json").read_text())
        lower = ROOTFS
        for name in wanted:
            bundle, layer = self.base / name, self._layers / name
            for each in (bundle / "rootfs", layer / "upper", layer / "work"):
                each.mkdir(parents=True)
            own = _placed(self._adapted(config, name, bundle), network and network(name))
            (bundle / "config.json").write_text(json.dumps(own))
            layers = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"
            self.do(f"mount -t overlay overlay -o {layers} {bundle}/rootfs")

    def start(self, name: str) -> float:
        """create, then start → the moment of the call; the workload itself says when it runs."""
        at = time.monotonic()
        self.do(_start(self.command, self.base, name))
        return at

    def start_all(self, wanted: Iterable[str]) -> float:
        """Two at a time, as a careful person would write it → the moment of the call."""
        self._list(wanted)
        at = time.monotonic()
        self.do(f"xargs -a {self.base}/names -P2 -I@ sh -c '{_start(self.command, self.base, '@')}'")
        return at

    def delete_all(self, wanted: Iterable[str]) -> float:
        """`delete --force`, two at a time → seconds."""
        self._list(wanted)
        at = time.monotonic()
        self.do(f"xargs -a {self.base}/names -P2 -I@ {self.command} delete --force @")
        return time.monotonic() - at

    def close(self) -> None:
        """Whatever has happened: containers, mounts (with the shell's namespace) and cgroups go."""
        try:
            left = [path.name for path in self.base.glob("state/[!.]*")]
            if left:
                self.delete_all(left)
        finally:
            self.end()
            for mount, _, _ in cgroup_mounts():
                _remove_group(Path(mount + self._group))
            end_volatile(self.base)
            shutil.rmtree(self._layers)

    def _list(self, wanted: Iterable[str]) -> None:
        (self.base / "names").write_text("".join(f"{name}\n" for name in wanted))

    def _adapted(self, config: dict[str, Any], name: str, bundle: Path) -> dict[str, Any]:
        linux = (
            {**config["linux"], "cgroupsPath": f"{self._group}/{name}"} if self._limits else config["linux"]
        )
        return {
            **config,
            "root": {**config["root"], "path": f"{bundle}/rootfs"},
            "process": {**config["process"], "args": announcing(name)},
            "linux": {**linux, "resources": LIMITS} if self._limits else linux,
        }


def _placed(config: dict[str, Any], network: str | None) -> dict[str, Any]:
    if network is None:
        return config
    place = {"type": "network", **({"path": network} if network else {})}
    spaces = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    return {**config, "linux": {**config["linux"], "namespaces": [*spaces, place]}}


@contextmanager
def bare(world: World, name: str, *, limits: bool = True) -> Iterator[Bare]:
    by_hand = Bare(world, name, limits=limits)
    try:
        yield by_hand
    finally:
        by_hand.close()


def _start(command: str, base: Path, name: str) -> str:
    return f"{command} create --bundle {base}/{name} {name} && {command} start {name}"


def _make_room(*, limits: bool) -> str:
    """On the hybrid layout crun works only where it sees one version alone: v1, which has the limits, or v2."""
    unified = [mount for mount, kind, _ in cgroup_mounts() if kind == "cgroup2"]
    if not unified or unified[0] == CGROUP_ROOT:
        return "true"
    return f"mount -t tmpfs none {unified[0]}" if limits else f"mount --bind {unified[0]} {CGROUP_ROOT}"


def _remove_group(group: Path) -> None:
    if group.is_dir():
        for each in group.iterdir():
            if each.is_dir():
                each.rmdir()
        group.rmdir()
