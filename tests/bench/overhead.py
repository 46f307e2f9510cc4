"""What a workload loses inside: sysbench on cpu and memory, redis on loopback, fio on the overlay; in turns with
outside.

Outside is the same programs in the same root file system by chroot, with a network namespace of its own for redis,
and fio in a directory of the disk that the overlay writes to.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.options import Options
from tests.bench.rows import Row, median
from tests.bench.world import CHECKOUT, World, running_world

ROOTFS = "/opt/masu/rootfs/programs"
NAME, LEAST = "load", 0.985
RUNS_S = "2"
REDIS = ["redis-server", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
BENCHMARK = ["redis-benchmark", "-q", "-t", "set", "-n", "100000", "-c", "20"]
FIO = ["fio", "--name=x", "--size=64M", "--bs=16k", "--direct=1", "--rw=randwrite", "--time_based"]
FIO += [f"--runtime={RUNS_S}", "--output-format=json", "--overwrite=1"]
EVENTS, RATE = r"events per second: *([\d.]+)", r"\(([\d.]+) MiB/sec\)"
REQUESTS = r"SET: ([\d.]+) requests per second"
Workload = tuple[str, list[str], Callable[[str], float], str]

WORKLOADS: tuple[Workload, ...] = (
    (
        "cpu",
        ["sysbench", "cpu", f"--time={RUNS_S}", "run"],
        lambda said: _number(EVENTS, said),
        "/s",
    ),
    (
        "memory",
        ["sysbench", "memory", f"--time={RUNS_S}", "--memory-total-size=1T", "run"],
        lambda said: _number(RATE, said),
        "MiB/s",
    ),
    ("redis on loopback", BENCHMARK, lambda said: _number(REQUESTS, said), "/s"),
    ("files, direct", FIO, lambda said: float(json.loads(said)["jobs"][0]["write"]["iops"]), "/s"),
)


def measure(options: Options) -> list[Row]:
    with running_world() as world:
        process = {"args": ["/bin/sleep", "100000"], "cwd": "/tmp", "stop": {"grace": "0s"}}
        world.add(NAME, {"rootfs": {"path": ROOTFS}, "process": process})
        return [_compare(world, each, options.rounds) for each in WORKLOADS]


def _compare(world: World, workload: Workload, rounds: int) -> Row:
    what, command, read, unit = workload
    directory = Path("/var/lib/masu") / world.instance / "outside"
    directory.mkdir(exist_ok=True)
    outside = ["unshare", "--net", "chroot", ROOTFS]
    inside = [*world.argv(), "exec", NAME, "--"]
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for here, sampled in ((inside, samples[0]), (outside, samples[1])):
            if command is FIO and here is outside:
                said = _output([*_beside(directory), *command[1:]])
            else:
                said = _output([*here, *_wrapped(command)])
            sampled.append(read(said))
    ratio = [one / other for one, other in zip(*samples, strict=True)]
    return Row(
        f"{what}: inside", median(samples[0]), unit, median(samples[1]), LEAST, at_least=True, samples=ratio
    )


def _wrapped(command: list[str]) -> list[str]:
    """A server of its own for each run of redis; files where the layer is."""
    words = " ".join(command)
    if command is BENCHMARK:
        server = " ".join(f"'{each}'" for each in REDIS)
        up = "ip link set lo up 2>/dev/null; "
        return ["/bin/sh", "-c", f"{up}{server} >/dev/null & sleep 0.5; {words}; kill $!"]
    return ["/bin/sh", "-c", f"cd /tmp && {words}"]


def _beside(directory: Path) -> list[str]:
    """fio of the same root file system, on a directory of the host: bound in a mount namespace of its own."""
    script = f'mount --bind {directory} {ROOTFS}/mnt && exec chroot {ROOTFS} fio --directory=/mnt "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "fio"]


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    time.sleep(0.2)
    return done.stdout.replace("\r", "\n")


def _number(pattern: str, said: str) -> float:
    found = re.findall(pattern, said)
    if not found:
        raise RuntimeError(f"no {pattern} in: {said[-500:]}")
    return float(found[-1])
