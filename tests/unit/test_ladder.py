"""Which checkpoints come in the place of a new start, and which are none for this host."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller.checkpoints.ladder import TRIES, candidates
from controller.checkpoints.policy import Policy, parse
from controller.errors import GuardRefused
from controller.model.checkpoint import ENDED, Checkpoint, Origin
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
    lineage="run",
    exit=Exit(-1, 9, "Signaled", 90_000),
)


def made(number: int, **origin: Any) -> Checkpoint:
    what = {"how": "schedule", "boot_id": "boot", "boot_ms": 1000 * number, "lineage": "run", **origin}
    return Checkpoint(f"{number:04}", Origin("web", number, **what))


MADE = [made(each) for each in range(1, 6)]


def ids(
    found: list[Checkpoint],
    record: Record | None,
    *,
    policy: Policy = BOTH,
    boot: str = "boot",
    lineage: str | None = None,
) -> list[int]:
    return [int(each.id) for each in candidates(found, policy, record, boot, lineage)]


def test_the_newest_first_after_a_run_of_some_length() -> None:
    assert ids(MADE, CRASHED) == [5, 4, 3, 2, 1]
    assert ids([], CRASHED) == []


def test_only_those_of_the_run_that_has_crashed() -> None:
    """What was started anew since is another run, and so is what somebody has started on purpose."""
    assert ids(MADE, replace(CRASHED, lineage="later")) == []
    assert ids([*MADE, made(6, lineage="later")], replace(CRASHED, lineage="later")) == [6]


def test_an_older_one_after_a_short_run_from_a_checkpoint() -> None:
    short = replace(CRASHED, backoff=2, restored="0003", launched_at=3500, tries=1)
    assert ids(MADE, short) == [2, 1], "what it has made itself may have been lost already"
    assert ids(MADE, replace(short, restored="0001")) == []
    assert ids(MADE, replace(short, restored="")) == [5, 4, 3, 2, 1], "a first start is none of a checkpoint"


def test_the_same_one_a_few_times_after_longer_runs_and_then_an_older_one() -> None:
    later = replace(CRASHED, restored="0005", launched_at=9000, tries=1)
    assert ids(MADE, later)[0] == 5
    assert ids(MADE, replace(later, tries=TRIES))[0] == 4
    older = replace(later, restored="0004", tries=TRIES)
    assert ids(MADE, older)[0] == 3, "never again a newer one that was tried before"
    assert ids([*MADE, made(10)], older)[0] == 10, "but one that this run has made"


def test_a_restore_that_masu_did_not_live_to_see_is_done_again() -> None:
    half = replace(CRASHED, phase="launching", exit=None, restored="0004", launched_at=0, pid=0, tries=1)
    assert ids(MADE, half) == [4, 3, 2, 1]
    assert ids(MADE, replace(half, backoff=4)) == [4, 3, 2, 1], "it has not run at all"
    assert ids(MADE, replace(half, tries=TRIES)) == [3, 2, 1]
    assert ids(MADE, replace(half, restored="")) == [], "a plain start"


@pytest.mark.parametrize(
    "record",
    [
        replace(CRASHED, exit=Exit(0, 0, "Completed", 9)),
        replace(CRASHED, exit=None),
        replace(CRASHED, intent="the spec says stopped"),
    ],
)
def test_who_has_not_crashed_is_started(record: Record) -> None:
    assert ids(MADE, record) == []


def test_who_was_ended_with_a_checkpoint_goes_on_from_it() -> None:
    put_by = replace(CRASHED, exit=Exit(0, 0, "Checkpointed", 9000), intent="ended with a checkpoint")
    last = made(6, ended=True)
    assert ids([*MADE, last], put_by)[0] == 6
    assert ids([*MADE, last], put_by, policy=Policy(on_failure="restore")) == []
    assert ids([*MADE, last], None)[0] == 6, "its record is gone"
    assert ids([*MADE, replace(last, id="0000")], put_by) == []


def test_what_is_not_whole_or_not_made_here_is_never_among_them() -> None:
    others = [
        replace(made(7), damage="torn"),
        made(8, how="imported"),
        made(9, how="imported", foreign=True),
        Checkpoint("0010", None, damage="no manifest"),
    ]
    assert ids([*MADE[:1], *others], CRASHED) == [1]


def test_a_reboot_counts_once_and_only_if_nothing_newer_is_of_this_boot() -> None:
    old = replace(CRASHED, boot_id="before")
    assert ids(MADE, old, boot="now") == [5, 4, 3, 2, 1]
    assert ids(MADE, None, boot="now") == [5, 4, 3, 2, 1], "/run is gone with it, mostly"
    assert ids(MADE, replace(CRASHED, boot_id="now", exit=None), boot="now") == []
    assert ids([*MADE, made(6, boot_id="now")], None, boot="now") == []
    assert ids([], None, boot="now") == []


def test_after_a_reboot_the_note_says_which_run_was_the_last() -> None:
    assert ids(MADE, None, boot="now", lineage="run") == [5, 4, 3, 2, 1]
    assert ids(MADE, None, boot="now", lineage="later") == [], "it was started anew, and made none"
    assert ids([*MADE, made(6, lineage="later")], None, boot="now", lineage="run")[0] == 5
    assert ids(MADE, None, boot="now", lineage=ENDED) == [], "its spec said stopped"


def test_the_spec_has_to_ask_for_it_or_to_have_a_schedule() -> None:
    for section, crash, reboot in (
        ({}, "restart", "start"),
        ({"schedule": {"every": "1h"}}, "restore", "restore"),
        ({"schedule": {"every": "1h"}, "onFailure": "restart"}, "restart", "restore"),
        ({"onReboot": "restore"}, "restart", "restore"),
    ):
        policy = parse(section)
        assert (policy.on_failure, policy.on_reboot) == (crash, reboot)
    assert ids(MADE, CRASHED, policy=Policy(on_reboot="restore")) == []
    assert ids(MADE, None, policy=Policy(on_failure="restore"), boot="now") == []


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
