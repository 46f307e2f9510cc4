"""What it takes to read, parse, validate and compare 1,000 specs: in a new process, and with nothing changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.git import DISK, GitWorld
from tests.bench.options import Options
from tests.bench.rows import Row, median
from tests.bench.world import CHECKOUT, World, environment, names

STAGES = {
    "imports": "Python's start and imports: CPU",
    "read": "cold: read (of git: fetched)",
    "accepted": "cold: parsed and validated",
    "resolved": "cold: worked out",
    "compared": "cold: compared, none is there yet",
    "cold": "cold, together",
    "again": "nothing changed: read, accepted, worked out",
}


def measure(options: Options) -> list[Row]:
    return [*_of(World(DISK), options), *_of(GitWorld(), options)]


def _of(world: World, options: Options) -> list[Row]:
    try:
        world.write(names("c", options.specs))
        found = [_reading(world) for _ in range(options.readings)]
    finally:
        world.close()
    where = "git" if isinstance(world, GitWorld) else "a directory"
    name = f"{options.specs} specs in {where}"
    samples = {stage: [each[stage] for each in found] for stage in STAGES}
    return [
        Row(f"{name}, {what}", median(samples[stage]), "s", samples=samples[stage])
        for stage, what in STAGES.items()
    ]


def _reading(world: World) -> dict[str, float]:
    """Of a new process, without a copy of a repository."""
    shutil.rmtree(Path("/var/lib/masu") / world.instance, ignore_errors=True)
    argv = [sys.executable, "-m", "tests.bench.reading", world.instance, world.followed]
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, timeout=120, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return {**found, "cold": sum(found[each] for each in ("read", "accepted", "resolved", "compared"))}
