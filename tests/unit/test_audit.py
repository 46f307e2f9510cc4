"""From what came of steps to lines that somebody reads later."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from controller.errors import StepFailed
from controller.model.audit import Entry, Peer
from controller.reconcile.apply import Outcome
from controller.reconcile.audit import entries
from controller.reconcile.checkpointing import mend
from controller.steps._base import Effect, Wait
from controller.steps.images import AwaitImage
from controller.steps.runtime import Await, RemoveRecord

STEP = RemoveRecord("web")


def test_each_step_is_an_entry_and_waiting_is_none() -> None:
    outcomes = [
        Outcome(STEP),
        Outcome(Await("web", "BackOff", "waits", 5), wait=Wait("BackOff", "waits", 5)),
        Outcome(AwaitImage("web", "oci:/i:1", "", Effect.CREATE), wait=Wait("Pulling", "waits", 5)),
        Outcome(STEP, wait=Wait("Stopping", "has until then", 5)),
        Outcome(STEP, error=StepFailed("no space")),
    ]
    found = list(entries("web", outcomes, 7))
    assert [(each.outcome, each.why) for each in found] == [
        ("done", ""),
        ("waits", "has until then"),
        ("failed", "no space"),
    ]
    assert {(each.at, each.container, each.step, each.what) for each in found} == {
        (7, "web", "RemoveRecord", STEP.text)
    }


def test_what_is_mended_is_written_down() -> None:
    written = list[Entry]()
    host: Any = SimpleNamespace(
        scratches=SimpleNamespace(names=lambda: {"web"}, remove=lambda name: None),
        snapshots=SimpleNamespace(drop=lambda name: None),
        records=SimpleNamespace(read=lambda name: None),
        criu=SimpleNamespace(mend=lambda name, group: ("thawed",)),
        clock=SimpleNamespace(wall_ms=lambda: 7),
        audit=SimpleNamespace(append=written.extend),
    )
    assert mend(host, lambda name: f"/{name}", lambda reached: None) == [("web", "thawed")]
    assert [(each.container, each.step, each.outcome) for each in written] == [
        ("web", "ClearScratch", "done")
    ]


def test_a_line_is_one_line_and_leaves_out_what_is_empty() -> None:
    def line(**fields: Any) -> dict[str, Any]:
        text = Entry(1, "web", "done", **fields).to_line("r")
        assert text.endswith("}\n")
        assert text.count("\n") == 1
        value: dict[str, Any] = json.loads(text)
        return value

    assert line() == {"at": 1, "revision": "r", "container": "web", "outcome": "done"}
    assert line(why="two\nlines")["why"] == "two\nlines"
    assert line(peer=Peer(5, 0))["pid"] == 5
    assert "login" not in line(peer=Peer(5, 0))
