"""Runs the installed `masu` as a process, in an instance of its own, and looks at the world it makes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

MASU = [sys.executable, "-m", "controller"]
ROOTFS = "/opt/masu/rootfs/busybox"
CHECKOUT = Path(__file__).resolve().parents[2]
WAIT_S = float(os.environ.get("MASU_TEST_WAIT", "10"))


def container(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A small container that runs until it is stopped; `spec` replaces or adds sections."""
    defaults: dict[str, Any] = {
        "rootfs": {"path": ROOTFS},
        "process": {"args": ["/bin/sleep", "100000"], "stop": {"grace": "0s"}},
    }
    for section, value in spec.items():
        before = defaults.get(section)
        defaults[section] = (
            {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        )
    return {"apiVersion": "masu/v1", "kind": "Container", "metadata": {"name": name}, "spec": defaults}


def network(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "masu/v1", "kind": "Network", "metadata": {"name": name}, "spec": spec}


def volume(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "masu/v1", "kind": "Volume", "metadata": {"name": name}, "spec": spec}


def until(condition: Callable[[], Any], what: str | Callable[[], str], wait_s: float = WAIT_S) -> Any:
    """The first true value of `condition`; fails with `what`, then asked, after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {wait_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)


def growth(count: Callable[[], float], within_s: float = 1) -> float:
    """Of what only grows, per second."""
    before, began = count(), time.monotonic()
    time.sleep(within_s)
    return (count() - before) / (time.monotonic() - began)


class Masu:
    """One instance with its source directory; `close` takes everything away, whatever has happened."""

    def __init__(self, directory: Path, runtime: str = "crun") -> None:
        self.instance = "t-" + secrets.token_hex(4)
        self.source = directory / "specs"
        self.source.mkdir()
        self.runtime = runtime
        self.daemon: subprocess.Popen[bytes] | None = None
        self._log = (directory / "daemon.log").open("wb")
        self._log_path = directory / "daemon.log"

    # --- desired state ---

    def write(self, *documents: dict[str, Any], file: str = "web.yaml") -> Path:
        """Rename a spec file into place, as editors and deploy tools do."""
        temporary, target = self.source / f".{file}.tmp", self.source / file
        temporary.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        temporary.rename(target)
        return target

    def write_text(self, text: str, file: str) -> Path:
        temporary, target = self.source / f".{file}.tmp", self.source / file
        temporary.write_text(text)
        temporary.rename(target)
        return target

    # --- the program ---

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        """`masu run` in the background; returns when it says that it is ready."""
        argv = [*self._argv(), "run", *arguments, str(self.source)]
        self.daemon = subprocess.Popen(
            argv, cwd=CHECKOUT, stdout=self._log, stderr=self._log, env={**os.environ, **(env or {})}
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon and wait for it."""
        if self.daemon is None:
            return 0
        self.daemon.send_signal(number)
        code = self.daemon.wait(timeout=20)
        self.daemon = None
        return code

    def run(
        self, *arguments: str, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._argv(), *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(env or {})},
        )

    def spawn(self, *arguments: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """While it runs; the caller ends it."""
        return subprocess.Popen(
            [*self._argv(), *arguments], cwd=CHECKOUT, stdin=subprocess.DEVNULL, stderr=stderr
        )

    def apply(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("apply", *arguments, str(self.source), env=env)

    def plan(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.run("plan", "-o", "json", str(self.source)).stdout)
        return value

    def prefix(self) -> list[str]:
        """What a command begins with to run where the instance runs."""
        return []

    def _argv(self) -> list[str]:
        return [*self.prefix(), *MASU, "--instance", self.instance, "--runtime", self.runtime]

    # --- the world ---

    def status(self, name: str = "web") -> dict[str, Any]:
        whole = json.loads(self.run("status", "-o", "json").stdout)
        found = [each for each in whole["containers"] if each["name"] == name]
        return found[0] if found else {}

    def record(self, name: str = "web") -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(
                Path(f"/run/masu/{self.instance}/records/{name}.json").read_text()
            )
        except (OSError, ValueError):
            return {}
        return value

    def pid(self, name: str = "web") -> int:
        """Init's pid when the record says running and the process is really there, else 0."""
        record = self.record(name)
        pid = int(record.get("pid", 0)) if record.get("phase") == "running" else 0
        return pid if pid and _alive(pid) else 0

    def running(self, name: str = "web", wait_s: float = WAIT_S) -> int:
        found: int = until(lambda: self.pid(name), f"{name} runs; {self.log()[-1500:]}", wait_s)
        return found

    def restarted(self, before: int, name: str = "web") -> int:
        def changed() -> int:
            pid = self.pid(name)
            return pid if pid not in {0, before} else 0

        found: int = until(changed, f"{name} has another init than {before}; {self.log()[-1500:]}")
        return found

    def events(self) -> list[dict[str, Any]]:
        lines = self.run("events", "-o", "json").stdout.splitlines()
        return [{"container": "", **json.loads(line)} for line in lines]

    def audit(self) -> list[dict[str, Any]]:
        """What stands in the audit log, oldest first."""
        found = sorted(Path("/var/log/masu").glob(f"{self.instance}.audit.jsonl*"), reverse=True)
        return [json.loads(line) for each in found for line in each.read_text().splitlines()]

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def traces(self, name: str = "*") -> list[str]:
        """Everything on the host that carries the name: must be empty after a removal."""
        run, state = Path("/run/masu") / self.instance, Path("/var/lib/masu") / self.instance
        patterns = [
            (run, f"records/{name}.json"),
            (run, f"bundles/{name}"),
            (run, f"runtime/{name}"),
            (run, f"conditions/{name}.json"),
            (run, f"counters/{name}.json"),
            (run, f"netns/{name}"),
            (run, f"names/{name}"),
            (run, f"devices/{name}.json"),
            (run, f"secrets/{name}"),
            (run, f"scratch/{name}"),
            (run, f"dumps/{name}.json"),
            (run, f"keeper/exits/{name}.json"),
            (run, f"keeper/pipes/{name}.json"),
            (run, f"keeper/pipes/{name}.std*"),
            (state, f"layers/{name}"),
            (state, f"layers/.{name}.removed"),
            (state, f"snapshots/{name}"),
            (state, f"attempts/{name}.json"),
            (state, f"logs/{name}"),
            (state, f"spaces/*/{name}"),
            (state, f"spaces/*/.{name}.*"),
        ]
        found = [str(path) for base, pattern in patterns for path in base.glob(pattern)]
        found += [f"{state}/pins.json: {each}" for each in self.pins() if fnmatch(each, name)]
        found += [str(each) for each in state.glob("images/*") if name == "*"]
        found += [f"{run}/grants.json: {each}" for each in self.grants() if fnmatch(each, name)]
        found += [
            f"checkpoint {each['id']}" for each in self.checkpoints() if fnmatch(each["container"], name)
        ]
        for mount in cgroup_mounts():
            found += [
                str(path)
                for pattern in (name, f"@*/{name}")
                for path in Path(mount).glob(f"masu/{self.instance}/{pattern}")
                if path.is_dir()
            ]
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        found += [each for each in mounts if self.instance in each and fnmatch(Path(each).name, name)]
        return found + self.in_space(name)

    def in_space(self, name: str = "*", sort: str = "*") -> list[str]:
        """What the host's kernel holds for spaces of that name: mounts, and loop devices of their files."""
        pattern = f"/var/lib/masu/{self.instance}/spaces/{sort}/{name}/*"
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        files = []
        for each in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # it goes at this moment
                files.append(each.read_text().removesuffix("\n").removesuffix(" (deleted)"))
        return [each for each in (*mounts, *files) if fnmatch(each, pattern)]

    def space(self, sort: str, name: str) -> Path:
        return Path(f"/var/lib/masu/{self.instance}/spaces/{sort}/{name}")

    def volumes(self) -> dict[str, dict[str, Any]]:
        whole = json.loads(self.run("status", "-o", "json").stdout)
        return {each["name"]: each for each in whole["volumes"]}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Oldest first."""
        if not Path(f"/var/lib/masu/{self.instance}/checkpoints").exists():
            return []
        found: list[dict[str, Any]] = json.loads(self.run("checkpoints", "-o", "json").stdout)
        return found

    def halfway(self) -> list[str]:
        """What only a checkpoint or a restore that is under way leaves on the host."""
        run, state = Path("/run/masu") / self.instance, Path("/var/lib/masu") / self.instance
        below = ("snapshots/*", "layers/*/coming", "layers/*/kept", "spaces/*/.*")
        found = [
            *run.glob("scratch/*"),
            *run.glob("dumps/*"),
            *(path for each in below for path in state.glob(each)),
        ]
        return [str(path) for path in found]

    def grants(self) -> list[str]:
        """Who was let in, whoever was first comes first."""
        try:
            return list(json.loads(Path(f"/run/masu/{self.instance}/grants.json").read_text())["grants"])
        except FileNotFoundError:
            return []

    def pins(self) -> dict[str, dict[str, str]]:
        """Which image each container has."""
        try:
            found: dict[str, dict[str, str]] = json.loads(
                Path(f"/var/lib/masu/{self.instance}/pins.json").read_text()
            )
        except FileNotFoundError:
            return {}
        return found

    def images(self) -> set[str]:
        """Digests of the images that are here, whole."""
        found = Path(f"/var/lib/masu/{self.instance}/images").glob("[0-9a-f]*")
        return {f"sha256:{each.name}" for each in found}

    def processes(self) -> list[int]:
        """Every process in the instance's cgroups, in any hierarchy."""
        pids: set[int] = set()
        for mount in cgroup_mounts():
            for file in Path(mount).glob(f"masu/{self.instance}/**/cgroup.procs"):
                pids.update(int(word) for word in file.read_text().split())
        return sorted(pid for pid in pids if _alive(pid))

    def keeper(self) -> int:
        """The keeper's pid."""
        lock = Path(f"/run/masu/{self.instance}/keeper/keeper.lock")
        return int(until(lock.read_text, "a keeper that has written its pid"))

    def close(self) -> None:
        """Stop the daemon, remove every container, and make sure of it."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        patience = int(max(20, WAIT_S))
        self.run("down", "--all", "--volumes", "--wait", f"{patience}s", timeout=patience + 40)
        left, alive = self.traces(), self.processes()
        for base in ("/run/masu", "/var/lib/masu"):
            shutil.rmtree(f"{base}/{self.instance}", ignore_errors=True)
        for file in Path("/var/log/masu").glob(f"{self.instance}.audit.jsonl*"):
            file.unlink()
        self._log.close()
        assert not left, f"left behind: {left}"
        assert not alive, f"still running: {alive}"


FETCH = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=float(sys.argv[3]))
connection.request("GET", "/passwd")
print(connection.getresponse().status)
"""


class NetworkedMasu(Masu):
    """Its host is a network namespace of the test's own: nothing of the machine's network changes."""

    def __init__(self, directory: Path, runtime: str = "crun") -> None:
        super().__init__(directory, runtime)
        self.host = "h" + self.instance[1:]
        _command("ip", "netns", "add", self.host)
        self.ip("link", "set", "lo", "up")

    def prefix(self) -> list[str]:
        return self.at("")

    def at(self, where: str) -> list[str]:
        """What a command begins with to run in a container's network namespace, or in the host's for ""."""
        if where.startswith("netns:"):
            return ["nsenter", f"--net=/run/netns/{where.removeprefix('netns:')}"]
        path = f"/run/masu/{self.instance}/netns/{where}" if where else f"/run/netns/{self.host}"
        return ["nsenter", f"--net={path}"]

    def inside(self, where: str, *command: str) -> str:
        return _command(*self.at(where), *command)

    def ip(self, *arguments: str) -> str:
        return self.inside("", "ip", *arguments)

    def tc(self, *arguments: str) -> str:
        return self.inside("", "tc", *arguments)

    def ip_json(self, where: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.inside(where, "ip", "-j", *arguments) or "[]")
        return found

    def links(self) -> list[str]:
        """Names of everything of ours on the host."""
        marked = f"masu/{self.instance}/"
        return [each["ifname"] for each in self.ip_json("", "link") if marked in each.get("ifalias", "")]

    def networks(self) -> dict[str, dict[str, Any]]:
        whole = json.loads(self.run("status", "-o", "json").stdout)
        return {each["name"]: each for each in whole["networks"]}

    def rejected(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("status", "-o", "json").stdout)["rejected"]
        return found

    def fetch(self, where: str, address: str, port: int, wait_s: float = 2) -> str:
        """The status of an HTTP request made from there; why it failed, otherwise."""
        argv = [*self.at(where), sys.executable, "-S", "-c", FETCH, address, str(port), str(wait_s)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=wait_s + 10, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def close(self) -> None:
        try:
            super().close()
            left = self.links()
            assert not left, f"left on the host: {left}"
        finally:
            _command("ip", "netns", "del", self.host)


def _command(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def cgroup_mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[2] in {"cgroup", "cgroup2"}]


def knob(masu: Masu, name: str, v1: str, v2: str) -> Path:
    """The path of a cgroup file on this host; v1 as `subsystem/file`."""
    subsystem, file = v1.split("/")
    mounts = {line.split()[1]: line.split() for line in Path("/proc/self/mounts").read_text().splitlines()}
    for mount, fields in mounts.items():
        if fields[2] == "cgroup" and subsystem in fields[3].split(","):
            return Path(mount) / "masu" / masu.instance / name / file
    unified = next(mount for mount, fields in mounts.items() if fields[2] == "cgroup2")
    return Path(unified) / "masu" / masu.instance / name / v2


def memory_max(masu: Masu, name: str = "web") -> Path:
    return knob(masu, name, "memory/memory.limit_in_bytes", "memory.max")


def set_knob(path: Path, value: str) -> None:
    """Behind masu's back."""
    with path.open("w") as file:
        file.write(value)


def _alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"
