"""Which checkpoints come in the place of a new start, and which are none for this host."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller.checkpoints.ladder import MOST, after_crash, after_reboot
from controller.checkpoints.policy import Policy, parse
from controller.errors import GuardRefused
from controller.model.checkpoint import Checkpoint, Origin
from controller.model.record import Exit, Record
from controller.reconcile.checkpointing import check_restore

BOTH = Policy(on_failure="restore", on_reboot="restore")
CRASHED = Record(
    "web",
    "spec",
    "frame",
    "exited",
    "boot",
    pid=7,
    launched_at=1000,
    backoff=1,
    exit=Exit(-1, 9, "Signaled", 90_000),
)


def made(number: int, **origin: Any) -> Checkpoint:
    what = {"how": "schedule", "boot_id": "boot", "boot_ms": 1000 * number, **origin}
    return Checkpoint(f"{number:04}", Origin("web", number, **what))


MADE = [made(each) for each in range(1, 6)]


def test_the_newest_few_after_a_run_of_some_length() -> None:
    assert after_crash(MADE, BOTH, CRASHED) == ("0005", "0004", "0003")
    assert len(after_crash(MADE, BOTH, CRASHED)) == MOST
    assert after_crash([], BOTH, CRASHED) == ()


def test_an_older_one_after_a_short_run_from_a_checkpoint() -> None:
    short = replace(CRASHED, backoff=2, restored="0003")
    assert after_crash(MADE, BOTH, short) == ("0002", "0001")
    assert after_crash(MADE, BOTH, replace(short, restored="0001")) == ()


def test_after_a_short_run_from_the_start_only_those_of_that_run() -> None:
    short = replace(CRASHED, backoff=2, launched_at=4500)
    assert after_crash(MADE, BOTH, short) == ("0005",)
    assert after_crash(MADE, BOTH, replace(short, boot_id="other")) == ()


@pytest.mark.parametrize(
    "record",
    [
        replace(CRASHED, exit=Exit(0, 0, "Completed", 9)),
        replace(CRASHED, exit=None),
        replace(CRASHED, intent="the spec says stopped"),
    ],
)
def test_who_has_not_crashed_is_started(record: Record) -> None:
    assert after_crash(MADE, BOTH, record) == ()


def test_what_is_not_whole_or_not_made_here_is_never_among_them() -> None:
    others = [
        replace(made(7), damage="torn"),
        made(8, how="imported"),
        made(9, how="imported", foreign=True),
        Checkpoint("0010", None, damage="no manifest"),
    ]
    assert after_crash([*MADE[:1], *others], BOTH, CRASHED) == ("0001",)


def test_a_reboot_counts_once_and_only_if_nothing_newer_is_of_this_boot() -> None:
    old = replace(CRASHED, boot_id="before")
    assert after_reboot(MADE, BOTH, old, "now") == ("0005", "0004", "0003")
    assert after_reboot(MADE, BOTH, None, "now") == ("0005", "0004", "0003"), "/run is gone with it, mostly"
    assert after_reboot(MADE, BOTH, replace(CRASHED, boot_id="now"), "now") == ()
    assert after_reboot([*MADE, made(6, boot_id="now")], BOTH, None, "now") == ()
    assert after_reboot([], BOTH, None, "now") == ()


def test_the_spec_has_to_ask_for_it_or_to_have_a_schedule() -> None:
    for section, crash, reboot in (
        ({}, "restart", "start"),
        ({"schedule": {"every": "1h"}}, "restore", "restore"),
        ({"schedule": {"every": "1h"}, "onFailure": "restart"}, "restart", "restore"),
        ({"onReboot": "restore"}, "restart", "restore"),
    ):
        policy = parse(section)
        assert (policy.on_failure, policy.on_reboot) == (crash, reboot)
    assert after_crash(MADE, Policy(on_reboot="restore"), CRASHED) == ()
    assert after_reboot(MADE, Policy(on_failure="restore"), None, "now") == ()


def test_a_cpu_that_can_less_is_told_by_what_it_lacks() -> None:
    desired: Any = SimpleNamespace(
        name="web",
        parts={"life": SimpleNamespace(state="running")},
        frame=SimpleNamespace(frame_digest="frame", digest="spec"),
    )
    host: Any = SimpleNamespace(
        facts=SimpleNamespace(machine="x86_64"),
        criu=SimpleNamespace(abilities=lambda: SimpleNamespace(usable=True)),
        hardware=SimpleNamespace(cpu_features=lambda: ("avx", "avx2", "sse2")),
    )
    origin = {"frame_digest": "frame", "spec_digest": "spec"}
    check_restore(host, desired, made(1, **origin, cpu_features=("avx", "sse2")))
    check_restore(host, desired, made(1, **origin))
    with pytest.raises(GuardRefused, match="amx_tile, avx512f"):
        check_restore(host, desired, made(1, **origin, cpu_features=("avx", "avx512f", "amx_tile")))
