"""The tests that need pure cgroup v2, run inside a Debian 13 machine with masu installed as a user would."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.machine import Finished, Image, Machine
from tests.vm.project import CHECKOUT, UNPACK, make_disk

INNER_TESTS = ("tests/vm/inner", "tests/contracts", "tests/e2e")
LONG = bool(os.environ.get("MASU_VM_LONG"))
ONLY = os.environ.get("MASU_VM_ONLY", "")
"""While a test is being written: part of its name, so that it runs in there alone."""
INNER_SELECTION = (
    f"-m '{'on_v2 or on_v2_long' if LONG else 'on_v2'}' -k 'not runc{f' and ({ONLY})' if ONLY else ''}'"
)
"""What runs inside: the tests that say so, with the runtime that `auto` picks."""
INNER_S = 1500 if LONG else 600
INNER_WAIT_S = 60
"""Python is about ten times slower in there, so the end-to-end tests wait longer for the same things."""
REPORT = "/run/report.xml"

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1700)]


@pytest.fixture
def machine(image: Image, tmp_path: Path) -> Iterator[Machine]:
    disk = make_disk(tmp_path)
    with Machine(image, tmp_path, (disk,)) as made:
        yield made


def test_the_suite_passes_on_pure_cgroup_v2(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Every selected test passes inside, some did run, and none was skipped."""
    took = {"boot": machine.boot()}
    took["install"] = _expect(machine.run(UNPACK, 120)).took_s
    inner = machine.run(_pytest(INNER_TESTS), INNER_S)
    took["tests"] = inner.took_s
    began = time.monotonic()
    report = machine.run(f"cat {REPORT}", 60)
    machine.power_off()
    took["report and power off"] = time.monotonic() - began
    with capsys.disabled():
        print("\nvm:", ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in took.items()))
        print("vm: inside,", inner.output.strip().splitlines()[-1].strip("= "))
    assert inner.status == 0, inner.output
    passed, skipped = _outcomes(report.output)
    assert passed, f"nothing ran inside\n{inner.output}"
    assert not skipped, f"skipped inside: {skipped}"


def _pytest(selection: tuple[str, ...]) -> str:
    there = " ".join(each for each in selection if (CHECKOUT / each).exists())
    return f"""
cd /masu
export CI=true MASU_VM=1 MASU_TEST_WAIT={INNER_WAIT_S} PYTHONUNBUFFERED=1
exec python3 -m pytest {there} {INNER_SELECTION} -p no:cacheprovider \\
    --durations=10 --timeout=240 --junitxml={REPORT}
"""


def _expect(finished: Finished) -> Finished:
    assert finished.status == 0, finished.output
    return finished


def _outcomes(report: str) -> tuple[list[str], list[str]]:
    """Names of the tests that passed and of those that were skipped, from pytest's JUnit report."""
    cases = list(ET.fromstring(report).iter("testcase"))
    skipped = [each.get("name", "") for each in cases if each.find("skipped") is not None]
    return [each.get("name", "") for each in cases if not len(each)], skipped
