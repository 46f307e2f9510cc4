"""What is about to be killed is not held back in its last writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.steps.throttle import unthrottle
from tests.worlds import MemoryCgroups, facts

GROUP = "/masu/test/web"


@pytest.mark.parametrize(
    ("layout", "subsystem", "files"),
    [
        (
            "v2",
            "io",
            {"io.max": "254:0 rbps=1 wbps=2 riops=3 wiops=4\n8:0 rbps=max wbps=5 riops=max wiops=max"},
        ),
        ("v1", "blkio", {"blkio.throttle.write_iops_device": "254:0 5\n8:0 6"}),
    ],
)
def test_every_limit_of_every_disk_is_lifted(layout: str, subsystem: str, files: dict[str, str]) -> None:
    cgroups = MemoryCgroups(facts(layout))
    cgroups.fill(GROUP, files)
    host: Any = SimpleNamespace(cgroups=cgroups)
    unthrottle(host, GROUP)
    assert [cgroups.read(GROUP, subsystem, file) for file in files] == [""]


def test_where_there_is_nothing_nothing_happens() -> None:
    host: Any = SimpleNamespace(cgroups=MemoryCgroups(facts("none")))
    unthrottle(host, GROUP)
