"""A push to a repository of 500 specs → the kernel has the new value; beside it the same fetch by hand, and an edit
in a directory of as many. Ten of the containers run, and one of these is changed; all others are stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.bench.edit import edit
from tests.bench.options import Options
from tests.bench.rows import Row, percentile, spread
from tests.bench.world import ANCHOR, CHECKOUT, WAIT_S, World, environment, names, until
from tests.repositories import Remote

SPECS = 500
CHANGED = names("c", 9)
RUNNING = len(CHANGED) + len([ANCHOR])
DISK = "/var/tmp"
"""As where masu's own copy is: what is synced there comes to a disk."""
PAUSE_S = 0.1
LEAST_MIB = 65


class GitWorld(World):
    """What is written is pushed at once; nobody fetches it before he is told to."""

    def __init__(self) -> None:
        super().__init__(DISK)
        self.remote = Remote(self.base / "remote")
        self.source = self.remote.work / "specs"
        self.source.mkdir()
        self.followed = self.remote.url("#main:specs")

    def write(self, *wanted: Any, **limits: Any) -> float:
        at = super().write(*wanted, **limits)
        self.remote.push()
        return at

    def sync(self) -> Callable[[], object]:
        """→ what waits for its end."""
        argv = [*self.argv(), "sync"]
        return subprocess.Popen(argv, cwd=CHECKOUT, env=environment(), stdout=subprocess.DEVNULL).wait

    def signal(self) -> Callable[[], object]:
        """The same without a start of Python."""
        assert self.daemon
        self.daemon.send_signal(signal.SIGHUP)
        return lambda: None


class Hand:
    """A repository beside masu's own, into which the same is fetched as people do it."""

    def __init__(self, world: GitWorld) -> None:
        self._git = ["git", "--git-dir", str(world.base / "by-hand.git")]
        self._url = str(world.remote.path)
        subprocess.run([*self._git, "init", "--quiet", "--bare"], check=True)
        self.fetch()

    def fetch(self) -> float:
        """→ seconds."""
        words = ["fetch", "--quiet", "--depth=1", "--no-tags", self._url, "+refs/heads/main:refs/heads/main"]
        at = time.monotonic()
        subprocess.run([*self._git, *words], check=True)
        return time.monotonic() - at


def measure(options: Options) -> list[Row]:
    fetches, commands, signals = _in_git(options.pushes)
    by_hand = {f"p{each}": (percentile(fetches, each), None) for each in (50, 99)}
    what = f"{SPECS} specs, {RUNNING} run; changed"
    return [
        *spread(f"{what} in git: `masu sync` → live, to `git fetch`", commands, "ms", **by_hand),
        *spread(f"{what} in git: SIGHUP → live, to `git fetch`", signals, "ms", **by_hand),
        *spread(f"{what} in a directory → live", _in_directory(options.pushes), "ms"),
    ]


def _in_git(pushes: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of a fetch by hand, of the command and of the signal; by hand is first every other time."""
    world = GitWorld()
    with _filled(world, "--fetch-every", "1h"):
        world.signal()
        _settle(world)
        hand, size = Hand(world), count(LEAST_MIB)
        fetches, commands, signals = list[float](), list[float](), list[float]()
        for index in range(pushes):
            for samples, nudge in ((commands, world.sync), (signals, world.signal)):
                name, mebibytes = CHANGED[index % len(CHANGED)], next(size)
                world.write([name], memory={"max": f"{mebibytes}Mi"})
                if index % 2:
                    fetches.append(1000 * hand.fetch())
                samples.append(1000 * _until_live(world, name, mebibytes, nudge))
                if not index % 2:
                    fetches.append(1000 * hand.fetch())
    return fetches, commands, signals


def _in_directory(edits: int) -> list[float]:
    """Milliseconds."""
    world = World(DISK)
    with _filled(world):
        _settle(world)
        return [
            1000 * edit(world, CHANGED[index % len(CHANGED)], LEAST_MIB + index) for index in range(edits)
        ]


@contextmanager
def _filled(world: World, *options: str) -> Iterator[None]:
    """Everything is written; what is in a repository is still to be fetched. Taken away whatever happens."""
    try:
        world.start(*options)
        world.write(names("s", SPECS - RUNNING), "stopped")
        world.write(CHANGED)
        yield
    finally:
        world.close()


def _settle(world: World) -> None:
    world.marks.wait(CHANGED, WAIT_S)
    world.until_converged()


def _until_live(
    world: GitWorld, name: str, mebibytes: int, nudge: Callable[[], Callable[[], object]]
) -> float:
    """→ seconds."""
    knob, wanted = os.open(world.memory_knob(name), os.O_RDONLY), str(mebibytes << 20).encode()
    time.sleep(PAUSE_S)
    try:
        at = time.monotonic()
        end = nudge()
        took = until(lambda: os.pread(knob, 64, 0).strip() == wanted, f"live: {name}") - at
        end()
    finally:
        os.close(knob)
    return took
