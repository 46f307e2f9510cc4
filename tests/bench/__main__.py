"""`python -m tests.bench [names…]`: runs the benchmarks as root, prints one table, and writes JSON if asked.

Ratios are of one run on one machine; nothing here is a test, and no test depends on a time.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import checkpoint, cold, edit, git, look, network, overhead, parse, repair, start, store
from tests.bench.options import Options
from tests.bench.rows import Row, table
from tests.bench.world import CHECKOUT

BENCHMARKS: Mapping[str, Callable[[Options], list[Row]]] = {
    "start": start.measure,
    "cold": cold.measure,
    "repair": repair.measure,
    "edit": edit.measure,
    "git": git.measure,
    "parse": parse.measure,
    "look": look.measure,
    "network": network.measure,
    "overhead": overhead.measure,
    "store": store.measure,
    "checkpoint": checkpoint.measure,
}
QUICK = Options(
    starts=8,
    counts=(20,),
    repairs=40,
    kills=8,
    edits=40,
    looked_at=(50,),
    idle_s=3.0,
    rounds=2,
    checkpoint_mib=64,
    pushes=5,
    readings=2,
)
BUSY_S = 2.0
FULL = replace(Options(), looked_at=(200, 1000), checkpoint_mib=1024)


def main() -> int:
    arguments = _arguments()
    if os.geteuid() != 0:
        print("benchmarks start containers: run them as root", file=sys.stderr)
        return 5
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken away first
    compileall.compile_dir(CHECKOUT / "controller", quiet=1)  # as an installed package is
    options = _options(arguments)
    host = _host()
    rows: list[Row] = []
    try:
        for name in arguments.names or BENCHMARKS:
            print(f"… {name}", file=sys.stderr, flush=True)
            rows += BENCHMARKS[name](options)
    finally:  # what was measured before something failed is worth having
        _publish(host, rows, arguments.json)
    return int(any(row.kept is False for row in rows))


def _publish(host: dict[str, Any], rows: list[Row], file: str | None) -> None:
    print(" · ".join(f"{key} {value}" for key, value in host.items()), table(rows), sep="\n")
    if file:
        Path(file).write_text(json.dumps({"host": host, "rows": [row.to_json() for row in rows]}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--json", metavar="FILE", help="every row with its samples")
    parser.add_argument("--count", type=int, action="append", metavar="N", help="`cold` with so many")
    parser.add_argument("--quick", action="store_true", help="few samples: does it run at all?")
    parser.add_argument("--full", action="store_true", help="`look` at 1,000 containers, too")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return arguments


def _options(arguments: argparse.Namespace) -> Options:
    chosen = QUICK if arguments.quick else FULL if arguments.full else Options()
    return replace(chosen, counts=tuple(arguments.count)) if arguments.count else chosen


def _host() -> dict[str, Any]:
    """`busy` is what others take of all processors before anything was started here: over a few %, times lie."""
    before = _ticks()
    time.sleep(BUSY_S)
    total, idle = (now - was for now, was in zip(_ticks(), before, strict=True))
    return {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "busy": f"{100 * (1 - idle / total):.0f} %",
    }


def _ticks() -> tuple[int, int]:
    """(all, idle and waiting for disks) since boot, of all processors: proc_stat(5)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


if __name__ == "__main__":
    sys.exit(main())
