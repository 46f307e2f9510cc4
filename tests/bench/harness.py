"""What every benchmark shares: samples, ratios against a baseline of the same run, and one table."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness import Masu, container

CRUN = shutil.which("crun", path=f"/opt/masu/bin:{os.environ['PATH']}") or "crun"
SPEC: dict[str, Any] = {"limits": {"memory": {"max": "64Mi"}, "pids": {"max": 32}, "cpu": {"max": "0.5"}}}


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, against what, and what DESIGN allows."""

    name: str
    measured: str
    baseline: str
    ratio: float | None
    budget: str
    met: bool | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def wait(condition: Callable[[], Any], timeout_s: float = 60.0, pause_s: float = 0.0002) -> None:
    deadline = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError("the benchmark waited in vain")
        time.sleep(pause_s)


@contextmanager
def daemon(**arguments: str) -> Iterator[Masu]:
    """A daemon in an instance of its own, taken away whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="masu-bench-"))
    directory.chmod(0o755)
    masu = Masu(directory)
    try:
        masu.start(*[word for key, value in arguments.items() for word in (f"--{key}", value)])
        wait(lambda: "Ready" in masu.log())
        yield masu
    finally:
        masu.close()
        shutil.rmtree(directory, ignore_errors=True)


def fill(masu: Masu, count: int) -> list[str]:
    """So many containers, one file each, and all of them running."""
    names = [f"c{number}" for number in range(count)]
    for name in names:
        masu.write(container(name, **SPEC), file=f"{name}.yaml")
    wait(lambda: all(masu.pid(name) for name in names), timeout_s=120, pause_s=0.02)
    return names


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bare:
    """The same bundle by hand: `crun create` and `crun start`, cgroups and limits made by crun.

    crun refuses a hybrid layout, so everything runs in one private mount namespace, entered once, in which
    the cgroup2 mount is hidden; then crun manages the v1 hierarchies as it does anywhere.
    """

    def __init__(self, masu: Masu, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="masu-bare-"))
        self._config = Path(f"/run/masu/{masu.instance}/bundles/{name}/config.json").read_text()

    def __enter__(self) -> Bare:
        hide = "mount --make-rprivate /; "
        if Path("/sys/fs/cgroup/unified").is_dir():
            hide += "mount -t tmpfs none /sys/fs/cgroup/unified; "
        self._shell = subprocess.Popen(
            ["unshare", "-m", "/bin/sh", "-c", hide + 'while read -r line; do eval "$line"; echo done; done'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._shell.stdin
        self._shell.stdin.close()
        self._shell.wait(timeout=60)
        shutil.rmtree(self.directory, ignore_errors=True)

    def prepare(self, names: list[str]) -> None:
        """A bundle and a mounted overlay for each, outside of the measured time."""
        import json  # noqa: PLC0415

        for name in names:
            bundle = self.directory / name
            for part in ("rootfs", "upper", "work"):
                (bundle / part).mkdir(parents=True)
            config = json.loads(self._config)
            config["root"]["path"] = str(bundle / "rootfs")
            config["linux"]["cgroupsPath"] = f"/masu-bare/{name}"
            config["linux"]["resources"] = {
                "memory": {"limit": 64 << 20},
                "pids": {"limit": 32},
                "cpu": {"quota": 50_000, "period": 100_000},
            }
            (bundle / "config.json").write_text(json.dumps(config))
            overlay = f"lowerdir=/opt/masu/rootfs/busybox,upperdir={bundle}/upper,workdir={bundle}/work"
            self.do(f"mount -t overlay overlay -o {overlay} {bundle}/rootfs")

    def do(self, line: str) -> None:
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(line + "\n")
        assert self._shell.stdout.readline() == "done\n"

    def start(self, name: str) -> None:
        crun = f"{CRUN} --root {self.directory}/state"
        self.do(
            f"{crun} create -b {self.directory}/{name} {name} </dev/null >/dev/null && {crun} start {name}"
        )

    def start_all(self, names: list[str]) -> None:
        """Two at a time."""
        crun = f"{CRUN} --root {self.directory}/state"
        one = f"{crun} create -b {self.directory}/{{}} {{}} </dev/null >/dev/null 2>&1 && {crun} start {{}}"
        self.do(f"printf '%s\\n' {' '.join(names)} | xargs -P2 -I{{}} sh -c '{one}'")

    def delete_all(self, names: list[str]) -> None:
        one = f"{CRUN} --root {self.directory}/state delete --force {{}}"
        self.do(f"printf '%s\\n' {' '.join(names)} | xargs -P2 -I{{}} sh -c '{one}'")

    def sweep(self, names: list[str]) -> None:
        for name in names:
            self.do(f"umount {self.directory}/{name}/rootfs 2>/dev/null")
        for mount in Path("/sys/fs/cgroup").iterdir():
            for group in (*(mount / "masu-bare" / name for name in names), mount / "masu-bare"):
                if group.is_dir():
                    group.rmdir()
