"""The tests that run inside a machine, as one piece of work that goes on beside the tests of the host."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.machine import Finished, Machine
from tests.vm.project import CHECKOUT, UNPACK, build_image, make_disk

INNER_TESTS = ("tests/vm/inner", "tests/contracts", "tests/e2e")
LONG = bool(os.environ.get("MASU_VM_LONG"))
ONLY = os.environ.get("MASU_VM_ONLY", "")
"""While a test is being written: part of its name, so that it runs in there alone."""
INNER_SELECTION = (
    f"-m '{'on_v2 or on_v2_long' if LONG else 'on_v2'}' -k 'not runc{f' and ({ONLY})' if ONLY else ''}'"
)
"""What runs inside: the tests that say so, with the runtime that `auto` picks."""
INNER_S = 1500 if LONG else 1200
INNER_WAIT_S = 60
"""Python is about ten times slower in there, so the end-to-end tests wait longer for the same things."""
REPORT = "/run/report.xml"


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of it: how long each phase took, pytest's own words and status, its JUnit report."""

    took: dict[str, float]
    inner: Finished
    report: str


class Suite:
    """Begins when it is made; `close` cuts it off wherever it is."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="masu-vm-"))
        self._machine: Machine | None = None
        self._worker = ThreadPoolExecutor(1)
        self._ran: Future[Ran] = self._worker.submit(self._run)

    def result(self) -> Ran:
        """Waits for its end."""
        return self._ran.result()

    def close(self) -> None:
        if self._machine is not None:
            self._machine.cut_power()
        self._worker.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self) -> Ran:
        disk = make_disk(self._directory)
        with Machine(build_image(), self._directory, (disk,)) as machine:
            self._machine = machine
            took = {"boot": machine.boot()}
            unpacked = machine.run(UNPACK, 300)
            took["install"] = unpacked.took_s
            assert unpacked.status == 0, unpacked.output
            inner = machine.run(_pytest(INNER_TESTS), INNER_S)
            took["tests"] = inner.took_s
            began = time.monotonic()
            report = machine.run(f"cat {REPORT}", 120).output
            machine.power_off()
            took["report and power off"] = time.monotonic() - began
        return Ran(took, inner, report)


SUITE = pytest.StashKey[Suite]()
"""Where the session keeps it."""


def _pytest(selection: tuple[str, ...]) -> str:
    there = " ".join(each for each in selection if (CHECKOUT / each).exists())
    return f"""
cd /masu
export CI=true MASU_VM=1 MASU_TEST_WAIT={INNER_WAIT_S} PYTHONUNBUFFERED=1
exec python3 -m pytest {there} {INNER_SELECTION} -p no:cacheprovider \\
    --durations=10 --timeout=240 --junitxml={REPORT}
"""
