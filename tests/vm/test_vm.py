"""The tests that need pure cgroup v2, run inside a Debian 13 machine with masu installed as a user would."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.vm.suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1700)]


def test_the_suite_passes_on_pure_cgroup_v2(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    """Every selected test passes inside, some did run, and none was skipped."""
    ran = suite.result()
    with capsys.disabled():
        print("\nvm:", ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in ran.took.items()))
        print("vm: inside,", ran.inner.output.strip().splitlines()[-1].strip("= "))
    assert ran.inner.status == 0, ran.inner.output
    passed, skipped = _outcomes(ran.report)
    assert passed, f"nothing ran inside\n{ran.inner.output}"
    assert not skipped, f"skipped inside: {skipped}"


def _outcomes(report: str) -> tuple[list[str], list[str]]:
    """Names of the tests that passed and of those that were skipped, from pytest's JUnit report."""
    cases = list(ET.fromstring(report).iter("testcase"))
    skipped = [each.get("name", "") for each in cases if each.find("skipped") is not None]
    return [each.get("name", "") for each in cases if not len(each)], skipped
