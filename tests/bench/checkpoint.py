"""Checkpoints of a process with 100 MiB that nothing squeezes: how long it stands still, and until it runs again.

By hand: a bare process and `criu`, and the same container and `runc`; images on a tmpfs, and for a whole checkpoint
squeezed by `zstd` to the disk. CRIU finds its cache on a tmpfs there, as it does wherever systemd runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.bare import Shell
from tests.bench.beat import FORGET, PROGRAM, RENEW, Beat
from tests.bench.options import Options
from tests.bench.rows import Row, median
from tests.bench.world import CHECKOUT, World, environment, running_world, until

MIB = 100
FROZEN_BUDGET, RESTORE_BUDGET = 1.2, 1.3
NAME, INSIDE, ROOTFS = "beating", "/beats", "/opt/masu/rootfs/programs"
PROGRAMS = "/opt/masu/bin"
WAIT_S = 60.0


class ByMasu:
    """As anybody would ask the daemon for it."""

    def __init__(self, world: World, beats: Path) -> None:
        self.beat = Beat(beats / "masu")
        self._world = world
        args = ["/usr/bin/python3", "-c", PROGRAM, str(MIB), f"{INSIDE}/masu"]
        mounts = [{"source": str(beats), "target": INSIDE}]
        process = {"args": args, "stop": {"grace": "0s"}}
        world.add(NAME, {"rootfs": {"path": ROOTFS}, "process": process, "mounts": mounts})

    def dump(self) -> None:
        self._done(self._world.call("checkpoint", NAME))

    def reported(self) -> float:
        """Seconds that the newest one says."""
        said = self._done(self._world.call("checkpoints", "-o", "json"))
        return float(json.loads(said)[-1]["frozenMs"]) / 1000

    def restore(self) -> tuple[float, float]:
        """→ (seconds from the command until it runs again, from its end until then)."""
        argv = [*self._world.argv(), "restore", NAME]
        at = time.monotonic()
        with subprocess.Popen(argv, cwd=CHECKOUT, env=environment(), stdout=subprocess.DEVNULL) as asked:
            ended, back = self.beat.back()
            assert asked.wait(WAIT_S) == 0
        return back - at, back - ended

    def _done(self, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode:
            raise RuntimeError(f"{done.args}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


class ByCriu:
    """A bare process; `archive` is on the disk."""

    def __init__(self, shell: Shell, base: Path, archive: Path) -> None:
        self.beat = Beat(base / "criu")
        self._shell, self._images, self._archive = shell, base / "images-criu", archive
        self._pid_file = base / "criu.pid"
        program = base / "program.py"
        program.write_text(PROGRAM)
        argv = f"{sys.executable} {program} {MIB} {self.beat.path}"
        shell.do(f"setsid {argv} 2>/dev/null & echo $! >{self._pid_file}")
        self._in_images = f"-D {self._images} -v1 -o {base}/criu.log"

    def dump(self) -> None:
        self._clear()
        self._shell.do(f"criu dump -t {self._pid()} {self._in_images} --leave-running")

    def keep(self) -> None:
        """Dump it, and squeeze that to the disk."""
        self.dump()
        self._shell.do(
            f"tar -C {self._images} -c . | zstd -q -1 -T0 -f -o {self._archive}; sync {self._archive}"
        )

    def restore(self) -> float:
        """→ seconds from the command until it runs again."""
        self.end()
        return self._back(f"criu restore -d {self._in_images}")

    def fetch(self) -> float:
        """The same from the disk."""
        self.end()
        self._clear()
        unpack = f"zstd -q -dc {self._archive} | tar -C {self._images} -x"
        return self._back(f"{unpack} && criu restore -d {self._in_images}")

    def end(self) -> None:
        self._shell.do(f"kill -KILL {self._pid()}; wait")
        until(lambda: not Path(f"/proc/{self._pid()}").exists(), "its end")

    def _back(self, script: str) -> float:
        at = self._shell.begin(script)
        _, back = self.beat.back()
        self._shell.finish(script)
        return back - at

    def _clear(self) -> None:
        shutil.rmtree(self._images, ignore_errors=True)
        self._images.mkdir()

    def _pid(self) -> int:
        return int(self._pid_file.read_text())


class ByRunc:
    """A container like masu's, by runc itself."""

    def __init__(self, shell: Shell, world: World, base: Path) -> None:
        self.beat = Beat(base / "runc")
        self._shell, self._base, self._images = shell, base, base / "images-runc"
        self._command = f"runc --root {base}/runc-state"
        self._in_images = f"--image-path {self._images} --work-path {base}/runc-work"
        bundle = base / "bundle"
        for each in ("rootfs", "upper", "work"):
            (bundle / each).mkdir(parents=True)
        layers = f"lowerdir={ROOTFS},upperdir={bundle}/upper,workdir={bundle}/work"
        shell.do(f"mount -t overlay overlay -o {layers} {bundle}/rootfs")
        self._bundle = bundle
        self._name = f"{world.instance}-runc"
        config = json.loads((world.run_dir / "bundles" / NAME / "config.json").read_text())
        args = ["/usr/bin/python3", "-c", PROGRAM, str(MIB), f"{INSIDE}/runc"]
        settings = base / "criu.conf"
        settings.write_text("network-lock skip\n")  # it has no connection, and here is no iptables
        own = {
            **config,
            "annotations": {"org.criu.config": str(settings)},
            "root": {**config["root"], "path": f"{bundle}/rootfs"},
            "process": {**config["process"], "args": args},
            "linux": {**config["linux"], "cgroupsPath": f"/{self._name}"},
        }
        (bundle / "config.json").write_text(json.dumps(own))
        shell.do(f"{self._command} run --detach --bundle {bundle} {self._name} 2>/dev/null")

    def dump(self) -> None:
        shutil.rmtree(self._images, ignore_errors=True)
        self._shell.do(f"{self._command} checkpoint {self._in_images} --leave-running {self._name}")

    def restore(self) -> float:
        """→ seconds from the command until it runs again."""
        self.end()
        script = f"{self._command} restore --detach --bundle {self._bundle} {self._in_images} {self._name}"
        at = self._shell.begin(script)
        _, back = self.beat.back()
        self._shell.finish(script)
        return back - at

    def end(self) -> None:
        self._shell.do(f"{self._command} delete --force {self._name}")


def measure(options: Options) -> list[Row]:
    with running_world() as world, _places() as (base, disk):
        ours = ByMasu(world, base)
        with (
            _shell(base) as shell,
            contextlib.ExitStack() as ends,
        ):  # a shell that sees ours' network namespace
            bare = ByCriu(shell, base, disk / "archive")
            ends.callback(bare.end)
            runc = ByRunc(shell, world, base)
            ends.callback(runc.end)
            for each in (ours, bare, runc):
                each.beat.go_on()
            return [
                *_frozen(options.rounds, ours, bare, runc),
                *_restored(options.rounds, ours, bare, runc),
            ]


def _frozen(rounds: int, ours: ByMasu, bare: ByCriu, runc: ByRunc) -> list[Row]:
    """In turns, after a first one of each that finds nothing known."""
    frozen: tuple[list[float], list[float], list[float]] = ([], [], [])
    reported, whole, again, by_hand = [], [], [], []
    sides: tuple[ByMasu | ByCriu | ByRunc, ...] = (ours, bare, runc)
    for _ in range(rounds + 1):
        for each, samples in zip(sides, frozen, strict=True):
            each.beat.ask(RENEW)
            each.beat.ask(FORGET)
            took = _took(each.dump)
            samples.append(each.beat.longest())
            if each is ours:
                whole.append(took)
        reported.append(ours.reported())
        again.append(_took(ours.dump))
        by_hand.append(_took(bare.keep))
    mine, theirs, runcs = (_ms(each) for each in frozen)
    name = f"checkpoint of {MIB} MiB"
    hand = median(_ms(by_hand))
    return [
        _row(f"{name}: stands still, against criu dump", mine, median(theirs), FROZEN_BUDGET),
        _row(f"{name}: stands still by runc, against criu dump", runcs, median(theirs)),
        _row(f"{name}: reported, against what the workload saw", _ms(reported), median(mine)),
        _row(f"{name}: command → listed, against criu dump and zstd -1 to the disk", _ms(whole), hand),
        _row(f"{name}: the same where nothing has changed", _ms(again), hand),
        Row(f"{name}: command → listed, per MiB", median(_ms(whole)) / MIB, "ms"),
    ]


def _restored(rounds: int, ours: ByMasu, bare: ByCriu, runc: ByRunc) -> list[Row]:
    whole, away, theirs, fetched, runcs = (list[float]() for _ in range(5))
    for _ in range(rounds + 1):
        for each in (ours, bare, runc):
            each.dump()
            each.beat.go_on()
        for samples, took in zip((whole, away), ours.restore(), strict=True):
            samples.append(took)
        theirs.append(bare.restore())
        bare.keep()
        bare.beat.go_on()
        fetched.append(bare.fetch())
        runcs.append(runc.restore())
    name, criu, hand = f"restore of {MIB} MiB", median(_ms(theirs)), median(_ms(fetched))
    return [
        _row(f"{name}: command → runs, against criu restore", _ms(whole), criu, RESTORE_BUDGET),
        _row(f"{name}: ended → runs, against criu restore", _ms(away), criu, RESTORE_BUDGET),
        _row(f"{name}: command → runs, against unzstd and criu restore", _ms(whole), hand),
        _row(f"{name}: command → runs by runc, against criu restore", _ms(runcs), criu),
    ]


def _row(name: str, samples: list[float], baseline: float, budget: float | None = None) -> Row:
    return Row(name, median(samples), "ms", baseline, budget, samples=samples)


def _ms(seconds: list[float]) -> list[float]:
    """Without the first, which found nothing made ready."""
    return [1000 * each for each in seconds[1:]]


def _took(act: Callable[[], object]) -> float:
    at = time.monotonic()
    act()
    return time.monotonic() - at


@contextlib.contextmanager
def _places() -> Iterator[tuple[Path, Path]]:
    """(on a tmpfs, on the disk)."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        tempfile.TemporaryDirectory(dir="/var/tmp") as disk,
    ):
        os.chmod(memory, 0o755)
        yield Path(memory), Path(disk)


@contextlib.contextmanager
def _shell(base: Path) -> Iterator[Shell]:
    """In which programs are masu's own, and /run is on a tmpfs."""
    made = Shell(base / "errors")
    try:
        aside = base / "aside"
        aside.mkdir()
        made.do(f"mount --rbind /run/masu {aside} && mount -t tmpfs none /run && mkdir /run/masu")
        made.do(f"mount --move {aside} /run/masu && export PATH={PROGRAMS}:$PATH && criu check")
        yield made
    finally:
        made.end()
