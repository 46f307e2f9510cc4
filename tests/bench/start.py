"""One container: spec file renamed into place → workload runs, against bare create + start of the same bundle."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench.bare import Bare, bare
from tests.bench.options import Options
from tests.bench.rows import Row, median, spread
from tests.bench.world import ANCHOR, WAIT_S, World, names, rename, running_world

PAUSE_S = 0.05
"""Between samples, so that each finds the machine quiet: joining a cgroup then costs its grace period anew."""
BUDGET = 1.5


def measure(options: Options) -> list[Row]:
    """Samples of the three kinds are taken in turn."""
    with (
        running_world() as world,
        bare(world, "by-hand") as hand,
        bare(world, "no-cgroup", limits=False) as free,
    ):
        wanted = names("s", options.starts + 1)
        for each in (hand, free):
            each.prepare(wanted, ANCHOR)
        kinds: list[Callable[[str], float]] = [
            lambda name: by_masu(world, name),
            lambda name: by_hand(world, hand, name),
            lambda name: by_hand(world, free, name),
        ]
        samples = [[kind(name) for kind in kinds] for name in wanted][1:]
    ours, theirs, without = ([1000 * each[kind] for each in samples] for kind in range(3))
    p50 = (median(theirs), BUDGET)
    return [
        *spread("start: file → workload runs, against crun with limits", ours, "ms", p50=p50),
        *spread("start: crun create + start with limits", theirs, "ms"),
        *spread("start: crun create + start without any cgroup", without, "ms"),
    ]


def by_masu(world: World, name: str) -> float:
    moves = world.prepare([name])
    time.sleep(PAUSE_S)
    at = rename(moves)
    took = world.marks.wait([name], WAIT_S) - at
    world.remove([name])
    world.gone([name])
    return took


def by_hand(world: World, by_hand: Bare, name: str) -> float:
    time.sleep(PAUSE_S)
    at = by_hand.start(name)
    took = world.marks.wait([name], WAIT_S) - at
    by_hand.delete_all([name])
    return took
