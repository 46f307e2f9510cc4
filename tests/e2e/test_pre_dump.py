"""What becomes of a checkpoint when something goes wrong with its pre-dump: another one is made, without.

This kernel may not track what is written to memory: CRIU's part in pre-dumps is played, all others are real. With
CRIU's own pre-dumps: tests/vm/inner/test_pre_dump.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from controller.app.wishes import wishes_of
from controller.checkpoints.cost import Ahead
from controller.checkpoints.pagemap import PARENT, decode, encode
from controller.errors import StepFailed
from controller.host.ports import Criu
from controller.model.dump import PRE_DUMP, CriuAbilities, Dumped, DumpOrder
from controller.model.launch import Init
from controller.reconcile.apply import Failpoint
from controller.reconcile.checkpointing import Acts, Made
from controller.reconcile.desired import desire
from controller.steps.checkpointing import AHEAD
from tests.e2e.boxes import PROGRAMS, Box
from tests.e2e.harness import Masu, container, until
from tests.e2e.test_checkpoints import done

MUCH = "x = bytearray(b'x') * (80 << 20); print('up', flush=True); import time; time.sleep(10000)"


@dataclass
class Tracking:
    """CRIU on a kernel that tracks what is written. `before`: what becomes of a pre-dump; `resumed`: what of the
    images of the dump after it."""

    real: Criu
    before: Callable[[], None] = lambda: None
    resumed: Callable[[str], None] = lambda _: None
    asked: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def abilities(self) -> CriuAbilities:
        return replace(self.real.abilities(), tracks_memory=True)

    def pre_dump(self, order: DumpOrder) -> Dumped:
        self.asked.append("pre-dump")
        Path(order.directory, PRE_DUMP).mkdir()
        self.before()
        return Dumped(3000, 10, 20480, 0, "established")

    def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
        self.asked.append("resumed" if order.resumes else "whole")
        if not order.resumes:
            assert not Path(order.directory, PRE_DUMP).exists(), "its memory is needed"
            return self.real.dump(order, while_frozen)
        found = self.real.dump(replace(order, resumes=False), while_frozen)
        self.resumed(order.directory)
        return found


@pytest.fixture
def much(masu: Masu) -> Masu:
    masu.write(container(rootfs={"path": PROGRAMS}, process={"args": ["/usr/bin/python3", "-c", MUCH]}))
    assert masu.apply().returncode == 0
    until(lambda: "up" in masu.run("logs", "web").stdout, "it is up")
    return masu


def made(masu: Masu, criu: Tracking, failpoint: Failpoint = lambda _: None) -> Made:
    box = Box(masu)
    wish = wishes_of(box.app, box.app.store.load(), ())["web"]
    host = replace(box.host, criu=criu)
    acts = Acts(host, failpoint, desire(wish, host.facts), box.group, nullcontext)
    return acts.checkpoint("manual", ends=False)


def refuse(*_: object) -> None:
    raise StepFailed("criu says no")


def torn(directory: str) -> None:
    """Pages that should be in the pre-dump, where nothing is."""
    image = next(Path(directory).glob("pagemap-[0-9]*.img"))
    found = decode(image.read_bytes())
    image.write_bytes(b"".join(encode(found.pages_id, (replace(each, flags=PARENT) for each in found.runs))))


@pytest.mark.parametrize(
    ("wrong", "asked", "said"),
    [
        ({}, ["pre-dump", "resumed"], "dumped then, 0 ahead (frozen for 3 ms more)"),
        ({"before": refuse}, ["pre-dump", "whole"], "pre-dump failed: criu says no"),
        ({"resumed": torn}, ["pre-dump", "resumed", "whole"], "pre-dump failed: "),
    ],
)
def test_whatever_goes_wrong_with_a_pre_dump_there_is_a_checkpoint(
    much: Masu, wrong: dict[str, Any], asked: list[str], said: str
) -> None:
    pid = much.pid()
    criu = Tracking(Box(much).host.criu, **wrong)
    found = made(much, criu)
    assert criu.asked == asked
    assert said in found.cost
    assert much.pid() == pid
    assert much.halfway() == []
    done(much, "checkpoints", "--verify")
    done(much, "restore", "web")
    assert much.record()["restored"] == found.checkpoint.id


def test_a_dump_that_cannot_go_on_from_it_is_made_once_more(much: Masu) -> None:
    class Stubborn(Tracking):
        def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
            if order.resumes:
                refuse()
            return super().dump(order, while_frozen)

    criu = Stubborn(Box(much).host.criu)
    assert "pre-dump failed: criu says no" in made(much, criu).cost
    assert criu.asked == ["pre-dump", "whole"]


def test_what_fails_after_the_dump_is_not_tried_again(much: Masu, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nothing to do with the pre-dump."""
    box = Box(much)
    criu = Tracking(box.host.criu)
    monkeypatch.setattr(type(box.host.snapshots), "take", lambda *_, ahead=False: None if ahead else refuse())
    with pytest.raises(StepFailed, match="criu says no"):
        made(much, criu)
    assert criu.asked == ["pre-dump", "resumed"]
    assert much.halfway() == []


def test_a_pre_dump_of_the_run_before_is_thrown_away(much: Masu) -> None:
    box = Box(much)

    def as_of_before(kind: str) -> None:
        if kind == "PreDump+":
            found = Ahead.from_json(json.loads(box.host.scratches.noted("web", AHEAD)))
            earlier = replace(found, init=Init(found.init.pid, found.init.start_time - 1))
            box.host.scratches.note("web", AHEAD, json.dumps(earlier.to_json()))

    criu = Tracking(box.host.criu)
    assert "pre-dump failed: the container was started anew" in made(much, criu, as_of_before).cost
    assert criu.asked == ["pre-dump", "whole"]


def test_a_container_with_little_memory_or_one_that_is_ended_has_none(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    criu = Tracking(Box(masu).host.criu)
    assert "ahead" not in made(masu, criu).cost
    assert criu.asked == ["whole"]
