"""What entries of limits.io may say: an entry about no path is about weights."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from controller.errors import SpecInvalid
from controller.spec.parse import parse


def _problems(entries: list[dict[str, Any]]) -> list[str]:
    spec = {"rootfs": {"path": "/r"}, "process": {"args": ["/bin/true"]}, "limits": {"io": entries}}
    document = {"apiVersion": "masu/v1", "kind": "Container", "metadata": {"name": "web"}, "spec": spec}
    try:
        parse(yaml.safe_dump(document).encode(), "web.yaml")
    except SpecInvalid as error:
        return [f"{each.path.removeprefix('spec.limits.')}: {each.message}" for each in error.problems]
    return []


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            [{"path": "/srv"}],
            "io[0]: limits nothing: add read, write, readIops, writeIops, weight or latency",
        ),
        ([{"weight": 5}, {"read": "1Mi/s"}], "io[1].read: read is that of a disk: write the path, too"),
        ([{"latency": "5ms"}], "io[0].latency: latency is that of a disk: write the path, too"),
    ],
)
def test_what_an_entry_may_not_say(entries: list[dict[str, Any]], problem: str) -> None:
    assert _problems(entries) == [problem]


def test_what_it_may() -> None:
    assert _problems([{"weight": 5}, {"path": "/srv", "read": "max"}, {"path": "/srv", "weight": 7}]) == []
