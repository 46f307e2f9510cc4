"""What is left of a restore that somebody was killed in, and what a restored container may differ in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.aspects._base import Subject
from controller.aspects.checkpoint import Checkpoint, Seen
from controller.aspects.namespaces import Namespaces
from controller.aspects.namespaces import Seen as SpacesSeen
from controller.checkpoints.cost import Ahead, cost, saved
from controller.checkpoints.policy import Policy
from controller.checkpoints.request import Request
from controller.model.checkpoint import Origin, TreeCopy
from controller.model.dump import Dumped
from controller.model.launch import Init
from controller.model.process import IdMap
from controller.report.checkpoints import age
from controller.steps.checkpointing import ClearScratch, PutBackFiles, RemoveCheckpoints, SettleFiles
from tests.worlds import facts

FACTS = facts("hybrid")

DEAD, ALIVE = Subject("web", "/g", 0, None, 0), Subject("web", "/g", 7, None, 0)
OWN = {"time": 1, "pid": 2, "mnt": 3, "net": 4, "uts": 5, "ipc": 6, "cgroup": 7, "user": 8}


@pytest.mark.parametrize(
    ("subject", "seen", "kinds"),
    [
        (ALIVE, Seen(""), []),
        (DEAD, Seen(""), []),
        (ALIVE, Seen("coming"), [SettleFiles]),
        (ALIVE, Seen("swapped"), [SettleFiles]),
        (DEAD, Seen("coming"), [PutBackFiles]),
        (DEAD, Seen("swapped"), [PutBackFiles]),
        (DEAD, Seen("swapped", launching=True), []),
    ],
)
def test_what_runs_has_its_files_and_what_does_not_gets_them_back(
    subject: Subject, seen: Seen, kinds: list[type]
) -> None:
    """As long as a restore may still come to its end, nothing is decided."""
    assert [type(each) for each in Checkpoint().diff(subject, Policy(), seen)] == kinds


def test_checkpoints_go_with_their_container() -> None:
    found = Checkpoint().remove(DEAD, Seen("", scratch=True, identities=("a", "b")))
    assert found == [ClearScratch("web"), RemoveCheckpoints("web", ("a", "b"))]
    assert Checkpoint().remove(DEAD, Seen("swapped")) == []


def _seen(time: int, offsets: dict[str, int], *, restored: bool) -> SpacesSeen:
    others = {kind: number + 100 for kind, number in OWN.items()}
    live = {**others, "time": time, "user": OWN["user"]}
    return SpacesSeen(OWN, live, {}, IdMap((), (), tuple(offsets.items())), None, True, restored)


def test_clocks_that_go_on_from_a_checkpoint_are_as_desired() -> None:
    """In a time namespace that nobody asked for, or with an offset that is smaller; only of what was restored."""
    spaces = Namespaces()
    plain = spaces.parse({}, FACTS)
    moved = _seen(OWN["time"] + 100, {"boottime": -5}, restored=True)
    assert spaces.verify(plain, moved) == []
    assert [each.key for each in spaces.verify(plain, replace(moved, restored=False))] == ["namespaces.time"]
    later = spaces.parse({"time": {"boottime": "10d"}}, FACTS)
    assert spaces.verify(later, moved) == []
    assert [each.key for each in spaces.verify(later, replace(moved, restored=False))] == [
        "namespaces.time.boottime"
    ]
    lost = _seen(OWN["time"], {}, restored=True)
    assert [each.key for each in spaces.verify(later, lost)] == ["namespaces.time"], "it has to have one"


def test_a_request_comes_back_as_it_was_and_nothing_else_does() -> None:
    asked = Request("restore", "web", "20261125-201523-042-1f9a3c07")
    assert Request.from_json(asked.to_json()) == asked
    for wrong in (
        {"verb": "delete"},
        {"container": "../x"},
        {"identity": "../x"},
        {"ends": 1},
        {"container": 3},
    ):
        with pytest.raises((ValueError, TypeError)):
            Request.from_json({**asked.to_json(), **wrong})


def test_an_origin_of_an_older_masu_is_read() -> None:
    """It had room for the checkpoint that another one needs; none ever did."""
    found = Origin("web", 1, "manual")
    assert Origin.from_json({**found.to_json(), "parent": ""}) == found


def test_what_a_standstill_was_for_is_said() -> None:
    dumped = Dumped(61_400, 90, 1, 0, "established")
    assert cost(dumped, ()) == "frozen for 61 ms"
    layer, data = TreeCopy("upper", "/x", 0, 0, 1), TreeCopy("volume.data", "/y", 5 << 20, 7, 3)
    assert cost(dumped, (layer,)).endswith("1 ms of it for files (none)")
    assert cost(dumped, (layer, data)).endswith("4 ms of it for files (5Mi copied, 7 shared)")


def test_what_a_pre_dump_was_good_for_is_said() -> None:
    dumped, ahead = Dumped(61_400, 90, 256, 512, "established"), Ahead(Init(7, 1), 3_400)
    assert saved(dumped, None, 4096) == ""
    assert saved(dumped, ahead, 4096) == "of its memory 1Mi dumped then, 2Mi ahead (frozen for 3 ms more)"
    failed = replace(ahead, failed="no room")
    assert saved(dumped, failed, 4096) == "pre-dump failed: no room"
    assert Ahead.from_json(json.loads(json.dumps(failed.to_json()))) == failed


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (0, "0s"), (61, "1m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert age(seconds * 1000) == text
