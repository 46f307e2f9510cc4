"""Behind masu's back: a limit is overwritten, a process is killed; how long until it is as written again."""

from __future__ import annotations

import os
import signal
import time

from tests.bench.bare import Bare, bare
from tests.bench.options import Options
from tests.bench.rows import Row, median, spread
from tests.bench.world import ANCHOR, WAIT_S, World, names, running_world, until

CONTAINERS = 40
PAUSE_S = 0.03
"""A key of one container is then changed less often than what counts as a fight over it."""
KNOB_BUDGET_MS, PROCESS_BUDGET = 20, 1.5
WRONG = b"134217728"


def measure(options: Options) -> list[Row]:
    wanted = names("c", CONTAINERS)
    with running_world(CONTAINERS) as world, bare(world, "by-hand") as hand:
        knobs = [1000 * _overwrite(world, wanted[index % CONTAINERS]) for index in range(options.repairs)]
        hand.prepare(wanted, ANCHOR)
        pairs = [(_kill(world, name), _start(world, hand, name)) for name in wanted[: options.kills]]
    ours, theirs = ([1000 * pair[kind] for pair in pairs] for kind in range(2))
    return [
        *spread("repair: limit overwritten → right again", knobs, "ms", p99=(None, KNOB_BUDGET_MS)),
        *spread(
            "repair: killed → runs again, against one bare start",
            ours,
            "ms",
            p50=(median(theirs), PROCESS_BUDGET),
        ),
    ]


def _overwrite(world: World, name: str) -> float:
    time.sleep(PAUSE_S)
    knob = os.open(world.memory_knob(name), os.O_RDWR)
    try:
        right = os.pread(knob, 64, 0)
        os.pwrite(knob, WRONG, 0)
        at = time.monotonic()
        return until(lambda: os.pread(knob, 64, 0) == right, f"repaired: {name}") - at
    finally:
        os.close(knob)


def _kill(world: World, name: str) -> float:
    time.sleep(PAUSE_S)
    world.marks.forget()
    pid = int(world.record(name)["pid"])
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return world.marks.wait([name], WAIT_S) - at


def _start(world: World, hand: Bare, name: str) -> float:
    time.sleep(PAUSE_S)
    world.marks.forget()
    at = hand.start(name)
    took = world.marks.wait([name], WAIT_S) - at
    hand.delete_all([name])
    return took
