"""What it costs to look: observe + diff of converged containers, idle daemon, memory, and `masu status`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from controller.app.parsing import parse
from controller.app.wiring import App
from controller.reconcile.desired import Desired, desire, resolve
from controller.reconcile.plan import plan
from controller.settings import Settings
from controller.sources.directory import DirectorySource
from controller.spec.accept import accept
from tests.bench.options import Options
from tests.bench.rows import Row, median
from tests.bench.world import World, running_world

ROUNDS = 5
OBSERVE_BUDGET_S_PER_1000 = 0.5
IDLE_BUDGET_PERCENT, STATUS_BUDGET_S = 1.0, 0.3
SMALL_MIB, LARGE_MIB, KEEPER_MIB = 48, 90, 12
TICKS = os.sysconf("SC_CLK_TCK")


def measure(options: Options) -> list[Row]:
    with running_world() as world:
        rows = _memory(world, 1, SMALL_MIB)
    for count in options.looked_at:
        with running_world(count - 1) as world:
            rows += [
                *observe(world, count, "", OBSERVE_BUDGET_S_PER_1000 * count / 1000),
                *_idle(world, count, options.idle_s),
            ]
            rows += [*_memory(world, count, LARGE_MIB), *_status(world, count)]
    return rows


def observe(world: World, count: int, what: str, budget_s: float | None) -> list[Row]:
    """CPU seconds of this very process, which does what the daemon does when it looks at everything."""
    app = App.build(Settings(instance=world.instance), runtime=False)
    wanted = _desired(app, world)
    samples = [_look(app, wanted) for _ in range(ROUNDS)]
    name = f"observe + diff of {' '.join((str(count), *what.split()))}: CPU"
    return [Row(name, median(samples), "s", budget=budget_s, samples=samples)]


def _desired(app: App, world: World) -> list[Desired]:
    found = DirectorySource(str(world.source)).snapshot()
    after = accept(app.store.load(), found, parse, app.host.facts.layout)
    wishes, _ = resolve(app.named(), after.resources, app.leases.load(), ())
    return [desire(each, app.host.facts) for each in wishes.values()]


def _look(app: App, wanted: list[Desired]) -> float:
    at = time.process_time()
    steps = [plan(each, app.places.group_of(each.name), app.host).steps for each in wanted]
    took = time.process_time() - at
    if any(steps):
        raise AssertionError(f"not converged: {[each for each in steps if each][:3]}")
    return took


def _idle(world: World, count: int, idle_s: float) -> list[Row]:
    """Nothing changes; a resync falls into the time with the chance of idle_s to 30 s."""
    pids = [_daemon(world), world.keeper_pid()]
    before, at = [_cpu_s(pid) for pid in pids], time.monotonic()
    time.sleep(idle_s)
    took = time.monotonic() - at
    daemon, keeper = (100 * (_cpu_s(pid) - was) / took for pid, was in zip(pids, before, strict=True))
    return [
        Row(f"idle with {count}: daemon", daemon, "%", budget=IDLE_BUDGET_PERCENT),
        Row(f"idle with {count}: keeper", keeper, "%"),
    ]


def _memory(world: World, count: int, budget: float) -> list[Row]:
    return [
        Row(f"resident with {count}: daemon", _rss_mib(_daemon(world)), "MiB", budget=budget),
        Row(f"resident with {count}: keeper", _rss_mib(world.keeper_pid()), "MiB", budget=KEEPER_MIB),
    ]


def _status(world: World, count: int) -> list[Row]:
    samples = []
    for _ in range(ROUNDS):
        at = time.monotonic()
        done = world.call("status")
        samples.append(time.monotonic() - at)
        if done.returncode or done.stdout.count("\n") < count:
            raise RuntimeError(f"status: {done.returncode}, {done.stdout[:500]}{done.stderr}")
    name = f"`masu status` of {count}, wall"
    return [Row(name, median(samples), "s", budget=STATUS_BUDGET_S, samples=samples)]


def _daemon(world: World) -> int:
    assert world.daemon
    return world.daemon.pid


def _cpu_s(pid: int) -> float:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
