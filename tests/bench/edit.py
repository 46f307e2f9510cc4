"""A limit edited in its file by rename → the kernel has the new value; among forty containers."""

from __future__ import annotations

import os
import time

from tests.bench.options import Options
from tests.bench.rows import Row, spread
from tests.bench.world import World, names, rename, running_world, until

CONTAINERS = 40
PAUSE_S = 0.03
BUDGET_MS = 50


def measure(options: Options) -> list[Row]:
    wanted = names("c", CONTAINERS)
    with running_world(CONTAINERS) as world:
        samples = [
            1000 * edit(world, wanted[index % CONTAINERS], 65 + index) for index in range(options.edits)
        ]
    return [*spread("edit: limit in the file → live", samples, "ms", p99=(None, BUDGET_MS))]


def edit(world: World, name: str, mebibytes: int) -> float:
    """→ seconds."""
    moves = world.prepare([name], memory={"max": f"{mebibytes}Mi"})
    knob, wanted = os.open(world.memory_knob(name), os.O_RDONLY), mebibytes << 20
    time.sleep(PAUSE_S)
    try:
        at = rename(moves)
        return until(lambda: os.pread(knob, 64, 0).strip() == str(wanted).encode(), f"live: {name}") - at
    finally:
        os.close(knob)
