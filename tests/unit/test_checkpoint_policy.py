"""The section `checkpoint:`. Of what `parse` understands the schema takes what something acts on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from controller.checkpoints.policy import Policy, Volumes, parse
from controller.checkpoints.retention import Keep
from controller.checkpoints.schedule import Schedule
from controller.spec.formats import FORMATS
from controller.spec.schema import _flat, _local
from tests.unit.resources import problems_of

SCHEMAS = Path(__file__).parents[2] / "schemas"
ID = "20261125-201523-042-1f9a3c07"
WRITTEN: dict[str, Any] = {
    "keep": {"last": 3, "hourly": 24, "daily": 7, "bytes": "10Gi"},
    "pins": [ID],
    "minFree": "2Gi",
    "tcp": "close",
    "encryption": {"keyFile": "/etc/masu/key"},
    "schedule": {"every": "10m", "jitter": "30s", "quiet": "02:00-04:00"},
    "onFailure": "restart",
    "onReboot": "start",
    "onShutdown": "checkpoint",
    "mode": "stop",
}


def _problems(section: Any) -> list[str]:
    parts = {
        name: _local(json.loads((SCHEMAS / file).read_text()), name)
        for name, file in (
            ("values", "values.schema.json"),
            ("checkpoint", "sections/checkpoint.schema.json"),
        )
    }
    whole = {**parts["checkpoint"], "$defs": parts}
    checker = FormatChecker(formats=())
    for name, check in FORMATS.items():
        checker.checks(name, raises=ValueError)(check)
    return [
        each.message
        for each in Draft202012Validator(_flat(whole, whole), format_checker=checker).iter_errors(section)
    ]


def test_everything_that_can_be_said_is_taken_over() -> None:
    assert _problems(WRITTEN) == []
    assert parse(WRITTEN) == Policy(
        False, Schedule(600_000, "", 30_000, (120, 240)), Keep(3, 24, 7, 10 << 30), frozenset({ID}), 2 << 30,
        "restart", "start", "checkpoint", "close", "stop", "/etc/masu/key",
    )  # fmt: skip


def test_an_empty_section_is_the_default() -> None:
    assert _problems({}) == []
    assert parse({}) == Policy()


def test_one_rule_stands_alone() -> None:
    assert parse({"keep": {"daily": 7}}).keep == Keep(last=0, daily=7)
    assert parse({"keep": {"bytes": "1Gi"}}).keep == Keep(last=3, bytes=1 << 30)


def test_never_means_never() -> None:
    assert _problems({"never": True}) == []
    assert parse({"never": True}) == Policy(never=True)
    assert _problems({"never": True, "tcp": "close"})


@pytest.mark.parametrize(
    "section",
    [
        {"keep": {"last": 0}},
        {"pins": ["../x"]},
        {"pins": [ID, ID]},
        {"encryption": {}},
        {"encryption": {"keyFile": "relative"}},
        {"tcp": "open"},
        {"unknown": 1},
    ],
)
def test_what_makes_no_sense_does_not_fit(section: Any) -> None:
    assert _problems(section)


@pytest.mark.parametrize("schedule", [{"every": "10ms"}, {"every": "10m", "jitter": "10m"}])
def test_what_a_schema_cannot_say_is_refused_in_words(schedule: Any) -> None:
    with pytest.raises(ValueError, match="short"):
        parse({"schedule": schedule})
    (told,) = problems_of(checkpoint={"schedule": schedule})
    assert told.startswith("checkpoint.schedule: ")


MOUNTED = {"own": ["data", "cache"], "shared": ["pool"]}


@pytest.mark.parametrize(
    ("written", "taken", "left"),
    [
        ({}, ("data", "cache"), ("pool",)),
        ({"volumes": "private"}, ("data", "cache"), ("pool",)),
        ({"volumes": ["cache"]}, ("cache",), ("data", "pool")),
        ({"volumes": ["pool"]}, (), ("data", "cache", "pool")),
        ({"volumes": "none"}, (), ("data", "cache", "pool")),
    ],
)
def test_volumes_go_along_that_nobody_else_mounts(
    written: dict[str, object], taken: tuple[str, ...], left: tuple[str, ...]
) -> None:
    assert parse({**written, "mounted": MOUNTED}).volumes == Volumes(taken, left, ("pool",))
