"""One instance of masu as a real process on the real kernel, and the directory it watches; `close` cleans up."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.bench.marks import INSIDE, Marks, announcing

CHECKOUT = Path(__file__).resolve().parents[2]
ROOTFS = "/opt/masu/rootfs/busybox"
RUNTIME = "crun"
WAIT_S = 60.0
ANCHOR = "anchor"
"""A container that stays: a source that becomes empty is frozen."""


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{index:03}" for index in range(count)]


class World:
    """The daemon of one instance; everything it makes carries the instance's name.

    `source`: the directory that specs are written to; `followed`: what the daemon is told to follow.
    """

    def __init__(self, below: str = "/dev/shm") -> None:
        self.instance = "bench-" + secrets.token_hex(4)
        self.base = Path(tempfile.mkdtemp(prefix=f"{self.instance}-", dir=below))
        self.source, self._nursery = self.base / "specs", self.base / "nursery"
        self.followed = str(self.source)
        self.source.mkdir()
        self._nursery.mkdir()
        self.marks = Marks(self.base / "marks")
        self.run_dir = Path("/run/masu") / self.instance
        make_volatile(self.run_dir)
        self._log = (self.base / "daemon.log").open("wb")
        self.daemon: subprocess.Popen[bytes] | None = None

    # --- the program ---

    def start(self, *options: str) -> None:
        """`masu run`, with the anchor running when this returns."""
        self.write([ANCHOR])
        argv = [*self.argv(), "run", "--allow-removals", *options, self.followed]
        self.daemon = subprocess.Popen(
            argv, cwd=CHECKOUT, stdout=self._log, stderr=self._log, env=environment()
        )
        self.marks.wait([ANCHOR], WAIT_S)

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "controller", "--instance", self.instance, "--runtime", RUNTIME]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [*self.argv(), *arguments]
        return subprocess.run(
            argv, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )

    def stop(self) -> None:
        """SIGTERM: containers go on running."""
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def keeper_pid(self) -> int:
        """The one process that has the keeper's directory among its arguments."""
        wanted = str(self.run_dir / "keeper").encode()
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            if each.parent.name != str(os.getpid()) and wanted in _bytes(each).split(b"\0"):
                return int(each.parent.name)
        raise AssertionError("no keeper runs")

    def close(self) -> None:
        self.stop()
        done = self.call("down", "--all")
        self.marks.close()
        self._log.close()
        if done.returncode:
            sys.stderr.write(f"{self.instance} is left behind: {done.stderr}\n")
            return
        end_volatile(self.run_dir)
        for file in Path("/var/log/masu").glob(f"{self.instance}.audit.jsonl*"):
            file.unlink()
        for each in (Path("/var/lib/masu") / self.instance, self.base):
            shutil.rmtree(each, ignore_errors=True)

    # --- desired state ---

    def prepare(
        self, wanted: Iterable[str], state: str = "running", **limits: Any
    ) -> list[tuple[Path, Path]]:
        """Write spec files next door → (there, where it is watched); renaming is all that is left to do."""
        moves = []
        for name in wanted:
            path = self._nursery / f"{name}.yaml"
            path.write_text(yaml.safe_dump(self._spec(name, state, limits)))
            moves.append((path, self.source / path.name))
        return moves

    def write(self, wanted: Iterable[str], state: str = "running", **limits: Any) -> float:
        """Rename spec files into the watched directory → the moment of the first rename."""
        return rename(self.prepare(wanted, state, **limits))

    def add(self, name: str, spec: dict[str, Any]) -> None:
        """One container of another kind; there, and converged, when this returns."""
        path = self._nursery / f"{name}.yaml"
        document = {"apiVersion": "masu/v1", "kind": "Container", "metadata": {"name": name}, "spec": spec}
        path.write_text(yaml.safe_dump(document))
        path.rename(self.source / path.name)
        until((self.run_dir / "records" / f"{name}.json").exists, name, pause_s=0.01)
        self.until_converged()

    def remove(self, unwanted: Iterable[str]) -> float:
        at = time.monotonic()
        for name in unwanted:
            (self.source / f"{name}.yaml").unlink()
        return at

    def gone(self, unwanted: Iterable[str]) -> float:
        """Wait until no trace is left of these → the moment."""
        wanted = set(unwanted)

        def left() -> bool:
            here = {path.stem for path in (self.run_dir / "records").iterdir()}
            return bool(here & wanted) or any(os.path.isdir(self.group(name, "memory")) for name in wanted)

        return until(lambda: not left(), "gone", pause_s=0.002)

    def _spec(self, name: str, state: str, limits: dict[str, Any]) -> dict[str, Any]:
        spec = {
            "state": state,
            "rootfs": {"path": ROOTFS},
            "process": {"args": announcing(name), "stop": {"grace": "0s"}},
            "mounts": [{"source": str(self.marks.directory), "target": INSIDE}],
            "limits": {"memory": {"max": "64Mi"}, "cpu": {"max": "0.5"}, "pids": {"max": 32}, **limits},
        }
        return {"apiVersion": "masu/v1", "kind": "Container", "metadata": {"name": name}, "spec": spec}

    # --- live state ---

    def record(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.run_dir / "records" / f"{name}.json").read_text())
        return value

    def group(self, name: str, subsystem: str) -> str:
        return f"{mount_of(subsystem)}/masu/{self.instance}/{name}"

    def memory_knob(self, name: str) -> Path:
        group = Path(self.group(name, "memory"))
        return group / ("memory.limit_in_bytes" if is_v1("memory") else "memory.max")

    def until_converged(self) -> None:
        until(lambda: self.call("plan", self.followed).returncode == 0, "an empty plan", pause_s=0.1)

    def log(self) -> str:
        return (self.base / "daemon.log").read_text(errors="replace")


@contextmanager
def running_world(count: int = 0, prefix: str = "c") -> Iterator[World]:
    """A daemon with `count` containers beside the anchor, converged; taken away whatever happens."""
    world = World()
    try:
        world.start()
        if count:
            world.write(names(prefix, count))
            world.marks.wait(names(prefix, count), WAIT_S)
        world.until_converged()
        yield world
    except BaseException:
        sys.stderr.write(world.log()[-3000:])
        raise
    finally:
        world.close()


def make_volatile(directory: Path) -> None:
    """A directory below /run on a tmpfs, as all of /run is wherever systemd runs."""
    directory.mkdir(parents=True, mode=0o711)
    found = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", directory], capture_output=True, check=True)
    if found.stdout.strip() != b"tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", directory.name, directory], check=True)


def end_volatile(directory: Path) -> None:
    if directory.is_mount():
        subprocess.run(["umount", "--lazy", directory], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def environment() -> dict[str, str]:
    """Whatever makes Python itself slower for developers is left out."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def rename(moves: Iterable[tuple[Path, Path]]) -> float:
    at = time.monotonic()
    for before, after in moves:
        before.rename(after)
    return at


def until(condition: Callable[[], Any], what: str, pause_s: float = 0.0001, wait_s: float = WAIT_S) -> float:
    """→ the moment at which `condition` was true."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {wait_s} s: {what}")
        time.sleep(pause_s)
    return time.monotonic()


def cgroup_mounts() -> list[tuple[str, str, set[str]]]:
    """(mount point, file system, options) of every cgroup mount."""
    fields = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        (each[1], each[2], set(each[3].split(","))) for each in fields if each[2] in {"cgroup", "cgroup2"}
    ]


def is_v1(subsystem: str) -> bool:
    return any(kind == "cgroup" and subsystem in options for _, kind, options in cgroup_mounts())


def mount_of(subsystem: str) -> str:
    mounts = cgroup_mounts()
    v1 = [mount for mount, kind, options in mounts if kind == "cgroup" and subsystem in options]
    return v1[0] if v1 else next(mount for mount, kind, _ in mounts if kind == "cgroup2")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
