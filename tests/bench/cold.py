"""Many at once from cold, and all of them away again, against two-way shell loops around the bare runtime."""

from __future__ import annotations

import time

from tests.bench.bare import bare
from tests.bench.options import Options
from tests.bench.rows import Row
from tests.bench.world import ANCHOR, WAIT_S, World, names, running_world

START_BUDGET, STOP_BUDGET = 0.8, 1.0


def measure(options: Options) -> list[Row]:
    return [row for count in options.counts for row in _of(count)]


def _of(count: int) -> list[Row]:
    with running_world() as world, bare(world, "by-hand") as hand:
        wanted = names("k", count)
        hand.prepare(wanted, ANCHOR)
        at = hand.start_all(wanted)
        hand_start = world.marks.wait(wanted, WAIT_S) - at
        hand_stop = hand.delete_all(wanted)
        start, stop = _by_masu(world, wanted)
        down = _down(world, wanted)
    start_name, stop_name = f"{count} from cold: throughput", f"{count} stopped and removed by the daemon"
    return [
        Row(start_name, count / start, "/s", count / hand_start, START_BUDGET, at_least=True),
        Row(stop_name, stop, "s", hand_stop, STOP_BUDGET),
        Row(f"{count} stopped and removed by `masu down --all`", down, "s", hand_stop, STOP_BUDGET),
    ]


def _by_masu(world: World, wanted: list[str]) -> tuple[float, float]:
    """→ seconds until all run, seconds until all are gone."""
    at = world.write(wanted)
    start = world.marks.wait(wanted, WAIT_S) - at
    world.until_converged()
    at = world.remove(wanted)
    return start, world.gone(wanted) - at


def _down(world: World, wanted: list[str]) -> float:
    """With the program's own start; one container more than by hand, the anchor."""
    world.write(wanted)
    world.marks.wait(wanted, WAIT_S)
    world.until_converged()
    world.stop()
    at = time.monotonic()
    done = world.call("down", "--all")
    took = time.monotonic() - at
    if done.returncode:
        raise RuntimeError(done.stderr)
    return took
