"""The measures of DESIGN §7, each against its baseline in the same run. Never a test: figures are for people."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.harness import SPEC, Bare, Row, cpu_s, daemon, fill, percentile, resident_kib, timed, wait
from tests.e2e.harness import Masu, container, memory_max, set_knob


def start(count: int) -> list[Row]:
    """A spec file renamed into place → its process runs; against create + start of the same bundle by hand."""
    ours, bare = [], []
    with daemon() as masu:
        fill(masu, 1)
        with Bare(masu, "c0") as by_hand:
            names = [f"s{number}" for number in range(count)]
            by_hand.prepare(names)
            for name in names:
                time.sleep(0.1)
                masu.write(container(name, **SPEC), file=f"{name}.tmp")
                source, target = masu.source / f"{name}.tmp", masu.source / f"{name}.yaml"
                ours.append(
                    timed(lambda s=source, t=target, n=name: (s.rename(t), wait(lambda: masu.pid(n))))
                )  # type: ignore[misc]
                time.sleep(0.1)
                bare.append(timed(lambda n=name: by_hand.start(n)))  # type: ignore[misc]
            by_hand.delete_all(names)
            by_hand.sweep(names)
    return [_ratio("start, p50", ours, bare, 0.5, 1.5), _ratio("start, p99", ours, bare, 0.99, None)]


def _ratio(name: str, ours: list[float], bare: list[float], share: float, budget: float | None) -> Row:
    mine, theirs = percentile(ours, share) * 1000, percentile(bare, share) * 1000
    ratio = mine / theirs
    met = None if budget is None else ratio <= budget
    limit = f"≤ {budget} ×" if budget else "-"
    return Row(name, f"{mine:.1f} ms", f"crun {theirs:.1f} ms", ratio, limit, met)


def cold(count: int) -> list[Row]:
    """So many files at once → all run; and all removed; against two-way shell loops of the bare runtime."""
    names = [f"s{number}" for number in range(count)]
    with daemon(**{"resync": "600"}) as masu:
        fill(masu, 1)
        for name in names:
            masu.write(container(name, **SPEC), file=f"{name}.tmp")
        with Bare(masu, "c0") as by_hand:
            by_hand.prepare(names)
            theirs = timed(lambda: by_hand.start_all(names))
            their_end = timed(lambda: by_hand.delete_all(names))
            by_hand.sweep(names)

        def rename() -> None:
            for name in names:
                (masu.source / f"{name}.tmp").rename(masu.source / f"{name}.yaml")
            wait(lambda: all(masu.pid(name) for name in names), pause_s=0.005)

        ours = timed(rename)
        masu.stop()
        (masu.source / "c0.yaml").unlink()
        our_end = timed(lambda: masu.run("down", "--all"))
    return [
        Row(
            f"{count} from cold",
            f"{ours:.2f} s",
            f"crun loop {theirs:.2f} s",
            theirs / ours,
            "≥ 0.8 ×",
            theirs / ours >= 0.8,
        ),
        Row(
            f"{count} stopped and removed",
            f"{our_end:.2f} s",
            f"crun delete {their_end:.2f} s",
            our_end / their_end,
            "≤ 1 ×",
            our_end <= their_end,
        ),
    ]


def repair(count: int) -> list[Row]:
    """An owned knob changed behind masu's back → right again; a killed process → running again."""
    with daemon() as masu:
        names = fill(masu, 20)
        right = memory_max(masu, names[0]).read_text()
        knobs = []
        for number in range(count):
            path = memory_max(masu, names[number % len(names)])
            time.sleep(0.02)

            def drift(path: Path = path) -> None:
                set_knob(path, str(1 << 30))
                wait(lambda: path.read_text() == right)

            knobs.append(timed(drift))
            if number % len(names) == len(names) - 1:
                time.sleep(1.0)  # eight repairs of one key within five seconds are a fight
        kills = [_kill(masu, name) for name in names]
        starts = [_start(masu, f"k{number}") for number in range(10)]
    again, once = percentile(kills, 0.5) * 1000, percentile(starts, 0.5) * 1000
    return [
        _limit("drift repaired, p50", percentile(knobs, 0.5), None),
        _limit("drift repaired, p99", percentile(knobs, 0.99), 20),
        Row(
            "killed → running, p50",
            f"{again:.1f} ms",
            f"start {once:.1f} ms",
            again / once,
            "≤ 1.5 ×",
            again / once <= 1.5,
        ),
    ]


def _kill(masu: Masu, name: str) -> float:
    before = masu.pid(name)
    time.sleep(0.1)

    def again() -> None:
        os.kill(before, signal.SIGKILL)
        wait(lambda: masu.pid(name) not in {0, before})

    return timed(again)


def _start(masu: Masu, name: str) -> float:
    time.sleep(0.1)
    masu.write(container(name, **SPEC), file=f"{name}.tmp")

    def renamed() -> None:
        (masu.source / f"{name}.tmp").rename(masu.source / f"{name}.yaml")
        wait(lambda: masu.pid(name))

    return timed(renamed)


def _limit(name: str, seconds: float, budget_ms: float | None) -> Row:
    value = seconds * 1000
    met = None if budget_ms is None else value <= budget_ms
    return Row(name, f"{value:.1f} ms", "-", None, f"≤ {budget_ms:.0f} ms" if budget_ms else "-", met)


def edit(count: int) -> list[Row]:
    """A limit edited in the file → live."""
    taken = []
    with daemon() as masu:
        names = fill(masu, 20)
        for number in range(count):
            name, size = names[number % len(names)], 65 + number
            spec = {**SPEC, "limits": {**SPEC["limits"], "memory": {"max": f"{size}Mi"}}}
            masu.write(container(name, **spec), file=f"{name}.tmp")
            path = memory_max(masu, name)
            time.sleep(0.05)

            def renamed(name: str = name, path: Path = path, size: int = size) -> None:
                (masu.source / f"{name}.tmp").rename(masu.source / f"{name}.yaml")
                wait(lambda: path.read_text().strip() == str(size << 20))

            taken.append(timed(renamed))
    return [
        _limit("limit edited → live, p50", percentile(taken, 0.5), None),
        _limit("limit edited → live, p99", percentile(taken, 0.99), 50),
    ]


def scale(count: int) -> list[Row]:
    """Observe and diff of many converged containers; memory; what idling costs; `masu status`."""
    with daemon() as masu:
        fill(masu, 1)
        assert masu.daemon
        time.sleep(1)
        small, keeper = resident_kib(masu.daemon.pid), _keeper(masu)
        small_keeper = resident_kib(keeper)
        fill(masu, count)
        time.sleep(2)
        large = resident_kib(masu.daemon.pid)
        before = cpu_s(masu.daemon.pid)
        time.sleep(20)
        idle = (cpu_s(masu.daemon.pid) - before) / 20 * 100
        look = _look(masu)
        status = min(timed(lambda: masu.run("status")) for _ in range(5)) * 1000
        large_keeper = resident_kib(keeper)
    per_thousand = look / count * 1000
    return [
        Row(
            f"observe + diff of {count}",
            f"{look * 1000:.0f} ms cpu",
            "-",
            None,
            f"≤ {count / 2000:.2f} s",
            per_thousand <= 0.5,
        ),
        Row(f"idle with {count}", f"{idle:.2f} % of a core", "-", None, "≤ 1 %", idle <= 1),
        Row("resident, 1 container", f"{small / 1024:.1f} MiB", "-", None, "≤ 48 MiB", small <= 48 * 1024),
        Row(
            f"resident, {count} containers",
            f"{large / 1024:.1f} MiB",
            "-",
            None,
            "≤ 90 MiB at 1000",
            large <= 90 * 1024,
        ),
        Row(
            "keeper, 1 container",
            f"{small_keeper / 1024:.1f} MiB",
            "-",
            None,
            "≤ 12 MiB",
            small_keeper <= 12 * 1024,
        ),
        Row(
            f"keeper, {count} containers",
            f"{large_keeper / 1024:.1f} MiB",
            "-",
            None,
            "≤ 12 MiB",
            large_keeper <= 12 * 1024,
        ),
        Row(f"masu status of {count}", f"{status:.0f} ms", "-", None, "≤ 300 ms", status <= 300),
    ]


def _keeper(masu: Masu) -> int:
    return int(Path(f"/run/masu/{masu.instance}/keeper/keeper.lock").read_text())


def _look(masu: Masu) -> float:
    """CPU seconds of one observe and diff of everything, in this process."""
    from controller.app import App  # noqa: PLC0415
    from controller.reconcile.desired import desire  # noqa: PLC0415
    from controller.reconcile.plan import plan  # noqa: PLC0415
    from controller.settings import Settings  # noqa: PLC0415

    app = App.build(Settings(instance=masu.instance), runtime=False)
    wanted = [desire(each, app.host.facts) for each in app.store.load().containers.values()]
    taken = []
    for _ in range(3):
        before = time.process_time()
        plans = [plan(each, app.places.group_of(each.name), app.host) for each in wanted]
        taken.append(time.process_time() - before)
        assert not any(each.steps for each in plans), "they are converged"
    return min(taken)


MEASURES: dict[str, tuple[Callable[[int], list[Row]], int, int]] = {
    "start": (start, 30, 5),
    "cold": (cold, 50, 10),
    "repair": (repair, 200, 20),
    "edit": (edit, 100, 10),
    "scale": (scale, 200, 20),
}
"""name → (function, samples, samples with --quick)"""
